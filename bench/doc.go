// Command bench measures Caddy with this module: what a stream, a delivery and
// a publish cost, next to two servers that bound it, a bare loop of write(2)
// and the handler that one would write oneself; what a storm of reconnects
// costs; and whether a record in a file stays as fast and as small as it was.
// README.md tells what its numbers mean.
package main
