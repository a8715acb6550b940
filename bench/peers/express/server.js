// Server-Sent Events as one writes them by hand with Express: a Set of
// responses for each channel, and a res.write for each event.
//
// node --expose-gc server.js <host:port of the streams> <host:port to publish at>

const express = require('express')

const channels = new Map()
let last = 0

const streams = express()
streams.get('/events', (req, res) => {
  const { channel } = req.query
  res.set({ 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-cache' })
  res.flushHeaders()
  if (!channels.has(channel)) channels.set(channel, new Set())
  channels.get(channel).add(res)
  res.on('close', () => {
    const listeners = channels.get(channel)
    listeners.delete(res)
    if (listeners.size === 0) channels.delete(channel)
  })
})

const backend = express()
backend.post('/publish/:channel', express.text({ type: () => true }), (req, res) => {
  const frame = `id: ${++last}\ndata: ${req.body}\n\n`
  for (const stream of channels.get(req.params.channel) ?? []) stream.write(frame)
  res.end()
})
backend.get('/gc', (req, res) => { // for the measurement of memory
  global.gc()
  res.end()
})

for (const [app, address] of [[streams, process.argv[2]], [backend, process.argv[3]]]) {
  const [host, port] = address.split(':')
  app.listen(Number(port), host, 4096)
}
