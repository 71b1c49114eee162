// The direct stream, written from docs/protocol.md alone, so that it is a second opinion on it:
//
//   chunk = length u32 BE | channel u8 | flags u8 | payload (at most 256 KiB)
//
// Flag bit 0: more chunks of this message follow. Control messages are msgpack arrays.
export const CHANNEL_CONTROL = 255
const CHUNK_BYTES_MAX = 256 << 10
const HEADER_BYTES = 6
const FLAG_MORE = 1

export function encode(value) {
  if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.of(value)
  if (Number.isInteger(value) && value >= 0 && value < 256) return Buffer.of(0xcc, value)
  if (typeof value === 'string') {
    const text = Buffer.from(value)
    if (text.length < 32) return Buffer.concat([Buffer.of(0xa0 | text.length), text])
  }
  if (Array.isArray(value) && value.length < 16) {
    return Buffer.concat([Buffer.of(0x90 | value.length), ...value.map(encode)])
  }
  if (value instanceof Uint8Array && value.length < 256) {
    return Buffer.concat([Buffer.of(0xc4, value.length), value])
  }
  throw new Error(`no encoding here for ${value}`)
}

function decodeControl(data) {
  let position = 0
  const take = (size) => data.subarray(position, (position += size))
  const item = () => {
    const tag = take(1)[0]
    if (tag < 0x80) return tag
    if (tag >> 4 === 0x9) return Array.from({ length: tag & 0x0f }, item)
    if (tag >> 5 === 0x5) return take(tag & 0x1f).toString()
    if (tag === 0xc4) return take(take(1)[0])
    if (tag === 0xcc) return take(1)[0]
    if (tag === 0xcd) return take(2).readUInt16BE()
    throw new Error(`no decoding here for tag ${tag}`)
  }
  const value = item()
  if (position !== data.length) throw new Error('control message is not one array')
  return value
}

export class Direct {
  // onControl gets each control message as an array, from the first byte on.
  constructor(stream, onControl) {
    this.stream = stream
    this.onControl = onControl
    this.buffer = Buffer.alloc(0)
    this.parts = new Map() // channel -> chunks of an unfinished message
    this.messages = [] // { channel, payload } in the order they were finished
    stream.addEventListener('message', (event) => this.#take(event.data.subarray()))
  }

  sendControl(value) {
    return this.send(CHANNEL_CONTROL, encode(value))
  }

  async send(channel, payload) {
    for (let start = 0; start === 0 || start < payload.length; start += CHUNK_BYTES_MAX) {
      const part = payload.subarray(start, start + CHUNK_BYTES_MAX)
      const header = Buffer.alloc(HEADER_BYTES)
      header.writeUInt32BE(part.length)
      header[4] = channel
      header[5] = start + CHUNK_BYTES_MAX < payload.length ? FLAG_MORE : 0
      if (!this.stream.send(Buffer.concat([header, part]))) await this.stream.onDrain()
    }
  }

  #take(data) {
    this.buffer = Buffer.concat([this.buffer, data])
    while (this.buffer.length >= HEADER_BYTES) {
      const end = HEADER_BYTES + this.buffer.readUInt32BE()
      const [channel, flags] = this.buffer.subarray(4, HEADER_BYTES)
      if (end > HEADER_BYTES + CHUNK_BYTES_MAX || flags > FLAG_MORE) throw new Error('bad chunk')
      if (this.buffer.length < end) return
      const parts = this.parts.get(channel) ?? []
      this.parts.set(channel, parts)
      parts.push(this.buffer.subarray(HEADER_BYTES, end))
      this.buffer = this.buffer.subarray(end)
      if (flags & FLAG_MORE) continue
      this.parts.delete(channel)
      const payload = Buffer.concat(parts)
      if (channel === CHANNEL_CONTROL) this.onControl(decodeControl(payload), payload)
      else this.messages.push({ channel, payload })
    }
  }
}
