// A js-libp2p peer beside a node: identify, ping, our direct stream, gossip both ways.
//
// usage: node interop.mjs '{"address": MULTIADDR, or null to be dialled; "nodePeer": PEER_ID,
//          "opens": whether we are to open the direct stream; "chainId": TEXT, "topic": TEXT}'
// Prints a JSON object a line for each step, then leaves when stdin ends, with exit code 0.
// The test judges what is printed; here only what cannot go on fails.
import './polyfill.mjs'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { peerIdFromPrivateKey } from '@libp2p/peer-id'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'
import { Direct } from './direct.mjs'

const DIRECT = '/zynk/direct/1'
const CHANNEL_TX = 1
const CHANNEL_SYNC_RESPONSE = 3
const [HELLO, PING, PONG] = [0, 1, 2]
const HELLO_HEIGHT = 7
const PONG_HEIGHT = 200
const PING_NONCE = 99
const PING_COUNT = 3
const GOSSIP_COUNT = 5
const TIMEOUT_MS = 15_000
const KEYS_MAX = 10_000

const { address, nodePeer, opens, chainId, topic } = JSON.parse(process.argv[2])
const say = (step, data = {}) => console.log(JSON.stringify({ step, ...data }))

async function until(condition, what) {
  for (const end = Date.now() + TIMEOUT_MS; Date.now() < end;) {
    const value = condition()
    if (value) return value
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  throw new Error(`timed out: ${what}`)
}

// Of two peers the one with the smaller id opens the direct stream: take an id on our side of it.
async function makeKey() {
  for (let count = 0; count < KEYS_MAX; count++) {
    const key = await generateKeyPair('Ed25519')
    if (peerIdFromPrivateKey(key).toString() < nodePeer === opens) return key
  }
  throw new Error('no peer id on that side')
}

const stdinEnded = new Promise((resolve) => process.stdin.on('end', resolve).resume())
const node = await createLibp2p({
  privateKey: await makeKey(),
  addresses: { listen: address === null ? ['/ip4/127.0.0.1/tcp/0'] : [] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping(), pubsub: gossipsub({ emitSelf: false }) }
})
const { pubsub } = node.services

let direct
const control = [] // hex of what the node sent on the control channel
let pongsSent = 0
function useStream(stream) {
  if (direct !== undefined) throw new Error('a second direct stream')
  direct = new Direct(stream, (value, payload) => {
    control.push({ kind: value[0], hex: payload.toString('hex') })
    if (value[0] !== PING) return
    pongsSent += 1
    direct.sendControl([PONG, value[1], PONG_HEIGHT])
  })
  direct.sendControl([HELLO, 'zynk/p2p/1', chainId, new Uint8Array(32), 1, HELLO_HEIGHT, 0])
}
await node.handle(DIRECT, (stream) => {
  if (opens) throw new Error('the node opened a direct stream that is ours to open')
  useStream(stream)
})
let identified
node.addEventListener('peer:identify', (event) => { identified ??= event.detail })
const heard = []
pubsub.addEventListener('message', ({ detail }) => {
  const { topic, data, from, type } = detail
  heard.push({ topic, text: Buffer.from(data).toString(), from: from?.toString(), type })
})
pubsub.subscribe(topic)

say('ready', { peer: node.peerId.toString(), addresses: node.getMultiaddrs().map(String) })
if (address !== null) await node.dial(multiaddr(address))
const connection = await until(() => node.getConnections()[0], 'connection')
say('connected', {
  peer: connection.remotePeer.toString(),
  direction: connection.direction,
  encryption: connection.encryption,
  multiplexer: connection.multiplexer
})

if (opens) useStream(await connection.newStream(DIRECT))
const hello = await until(() => control[0], 'hello of the node')
say('hello', { hex: hello.hex, direction: direct.stream.direction })

const rttsMs = []
for (let count = 0; count < PING_COUNT; count++) {
  rttsMs.push(await node.services.ping.ping(connection.remotePeer))
}
say('pinged', { rttsMs })

await until(() => identified, 'identify')
say('identified', {
  peer: identified.peerId.toString(),
  protocols: identified.protocols,
  listenAddrs: identified.listenAddrs.map(String)
})

await direct.sendControl([PING, PING_NONCE, HELLO_HEIGHT])
const pong = await until(() => control.find((message) => message.kind === PONG), 'pong')
await until(() => pongsSent > 0, 'ping of the node')
say('alive', { hex: pong.hex })

const { channel, payload } = await until(() => direct.messages[0], 'frame of the node')
if (channel !== CHANNEL_SYNC_RESPONSE) throw new Error(`frame on channel ${channel}`)
await direct.send(CHANNEL_TX, Buffer.from('from js'))
await direct.send(CHANNEL_TX, payload)
say('framed', { bytes: payload.length })

const isMeshed = () => pubsub.getMeshPeers(topic).includes(nodePeer)
await until(isMeshed, 'the node in the mesh of the topic')
for (let count = 0; count < GOSSIP_COUNT; count++) {
  await pubsub.publish(topic, Buffer.from(`from js ${count}`))
}
say('published', { streams: connection.streams.map((stream) => stream.protocol) })
await until(() => heard.length >= GOSSIP_COUNT, 'gossip of the node')
say('heard', { heard })

await stdinEnded
if (node.getConnections().length !== 1) throw new Error('the connection did not stay')
await node.stop()
say('stopped', { heardCount: heard.length, messageCount: direct.messages.length })
process.exit(0)
