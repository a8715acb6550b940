//go:build !linux

package sse

import (
	"net"
	"net/http"
)

// Direct is the engine for HTTP/1.0 and 1.1 on Linux. Elsewhere it reports that it
// did not take the stream, and the caller has [Subscriber.Stream] write it.
func (s *Subscriber) Direct(http.ResponseWriter, net.Conn, *Tuning, Owner) (taken bool) {
	return false
}

// A directEngine is on Linux only.
type directEngine struct{}
