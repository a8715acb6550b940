// Package torture treats real Caddies badly: it kills, stops and reloads them
// while publishers publish and subscribers drop, stall and come back, and has
// an [ssetest.History] find out whether a promise was broken. It consists of
// tests; docs/torture.md tells how to run it for long.
//
// [ssetest.History]: https://pkg.go.dev/github.com/caddy-sse/caddy-sse/sse/ssetest#History
package torture
