//go:build linux

package main

import (
	"io"
	"log"
	"net/http"
	_ "net/http/pprof" // the endpoint that Caddy's admin API has as well
)

// serveChild runs the loop if the arguments ask for that, as startServer does:
// engine, address of the streams, address of the
// publish endpoint. It then never returns.
func serveChild(args []string) bool {
	if len(args) != 3 || args[0] != "loop" {
		return false
	}
	log.SetFlags(0)
	publish := serveLoop(args[1])
	http.HandleFunc("POST /sse/publish/{channel}", func(_ http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return // the publisher is gone
		}
		publish(r.PathValue("channel"), string(data))
	})
	log.Fatal(http.ListenAndServe(args[2], nil))
	return true
}

// A publishFunc hands an event on without waiting for its delivery.
type publishFunc func(channel, data string)
