// Command bench measures Caddy with this module: what a stream, a delivery and
// a publish cost over each protocol, next to a bare loop of write(2), to the
// handler that one would write oneself, and to other servers; what bursts, slow
// subscribers, reloads and storms of reconnects do; and whether a record in a
// file stays as fast and as small as it was. README.md tells what its numbers
// mean.
package main
