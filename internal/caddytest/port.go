package caddytest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Where ports are looked for: below those that systems give to connections that
// are made. Of these, one that nobody listens on may be taken by a client before the
// test listens on it, or while a server that had it restarts. And none begins as one
// does that the examples have (3000, 2019), which tests replace in their texts.
const (
	firstPort = 21000
	lastPort  = 29999
)

// handedOut are the ports that this process was given. The system cannot tell that
// somebody is about to listen on one.
var handedOut struct {
	sync.Mutex
	ports map[int]bool
}

// FreePort returns a TCP port of the loopback interface that nobody listens
// on, for UDP (HTTP/3) as well. It never returns the same one again, so that a
// test may ask for several before it listens on any. They are random, since
// tests of other packages look for theirs at the same time.
func FreePort(t testing.TB) int {
	t.Helper()
	handedOut.Lock()
	defer handedOut.Unlock()
	if handedOut.ports == nil {
		handedOut.ports = make(map[int]bool)
	}
	for range 10 * (lastPort - firstPort) {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if handedOut.ports[port] || !isFree(port) {
			continue
		}
		handedOut.ports[port] = true
		return port
	}
	t.Fatalf("no port from %d to %d is free for both TCP and UDP", firstPort, lastPort)
	return 0
}

// isFree reports whether one can listen on a port now.
func isFree(port int) bool {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		return false
	}
	return udp.Close() == nil
}
