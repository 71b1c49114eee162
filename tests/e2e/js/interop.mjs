// A js-libp2p peer at a node's door: dial, identify, ping, our direct stream, gossip both ways.
// usage: node interop.mjs MULTIADDR CHAIN_ID TOPIC; prints one JSON object a step.
import './polyfill.mjs'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { multiaddr } from '@multiformats/multiaddr'

const [address, chainId, topic] = process.argv.slice(2)
const DIRECT = '/zynk/direct/1'
const CONTROL = 255
const text = new TextEncoder()
const say = (step, data = {}) => console.log(JSON.stringify({ step, ...data }))
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

async function until(condition, what, ms = 15000) {
  for (let waited = 0; waited < ms; waited += 50) {
    if (condition()) return
    await sleep(50)
  }
  throw new Error(`timed out: ${what}`)
}

function string(value) {
  const bytes = text.encode(value)
  if (bytes.length > 31) throw new Error('a longer string needs another msgpack form')
  return [0xa0 | bytes.length, ...bytes]
}

// hello = [0, "zynk/p2p/1", chain_id, genesis_hash 32, protocol_version 1, height 7, listen_port 0]
const hello = Uint8Array.from([
  0x97, 0, ...string('zynk/p2p/1'), ...string(chainId), 0xc4, 32, ...new Array(32).fill(0), 1, 7, 0
])

function chunk(channel, payload) {
  const out = new Uint8Array(6 + payload.length)
  new DataView(out.buffer).setUint32(0, payload.length)
  out[4] = channel
  out.set(payload, 6)
  return out
}

class Direct {
  constructor(stream) {
    this.stream = stream
    this.buffer = new Uint8Array(0)
    this.frames = []
    stream.addEventListener('message', (event) => this.take(event.data.subarray()))
    stream.send(chunk(CONTROL, hello))
  }

  take(data) {
    const joined = new Uint8Array(this.buffer.length + data.length)
    joined.set(this.buffer)
    joined.set(data, this.buffer.length)
    this.buffer = joined
    while (this.buffer.length >= 6) {
      const length = new DataView(this.buffer.buffer, this.buffer.byteOffset).getUint32(0)
      if (this.buffer.length < 6 + length) return
      this.frames.push({ channel: this.buffer[4], payload: this.buffer.slice(6, 6 + length) })
      this.buffer = this.buffer.slice(6 + length)
    }
  }
}

const node = await createLibp2p({
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ allowPublishToZeroTopicPeers: true, emitSelf: false })
  }
})
let direct
await node.handle(DIRECT, (stream) => { direct = new Direct(stream) })
const heard = []
node.services.pubsub.addEventListener('message', (event) => {
  if (event.detail.topic === topic) heard.push(new TextDecoder().decode(event.detail.data))
})
node.services.pubsub.subscribe(topic)

const target = multiaddr(address)
const connection = await node.dial(target)
const peer = connection.remotePeer
say('dialled', { peer: peer.toString(), own: node.peerId.toString() })

// Of two peers the one with the smaller id opens the direct stream.
if (node.peerId.toString() < peer.toString()) direct = new Direct(await connection.newStream(DIRECT))
await until(() => direct?.frames.some((f) => f.channel === CONTROL), 'hello of the node')
say('hello')
for (let i = 0; i < 3; i++) await node.services.ping.ping(peer)
say('pinged')
await until(() => true, 'identify')
let protocols = []
for (let i = 0; i < 100 && !protocols.includes(DIRECT); i++) {
  protocols = (await node.peerStore.get(peer)).protocols
  await sleep(50)
}
say('identified', { protocols })
direct.stream.send(chunk(1, text.encode('from js, direct')))
await until(() => direct.frames.some((f) => f.channel === 3), 'frame of the node')
const frame = direct.frames.find((f) => f.channel === 3)
say('frame', { text: new TextDecoder().decode(frame.payload) })
await until(() => node.services.pubsub.getSubscribers(topic).length > 0, 'subscription of the node')
for (let i = 0; i < 60 && (heard.length === 0 || i < 12); i++) {
  if (i % 4 === 0) await node.services.pubsub.publish(topic, text.encode(`from js, gossip ${i}`))
  await sleep(250)
}
say('heard', { heard })
await node.stop()
process.exit(0)
