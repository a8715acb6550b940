// Command bench measures what a stream, a delivery and a publish cost in
// Caddy with this module, next to two servers that bound it: a bare loop of
// write(2), and the handler that one would write oneself. README.md tells what
// its numbers mean.
package main
