//go:build linux

package main

import (
	"fmt"
	"log"
	"net/http"
	"sync"
)

// A naive hub is the one that most people write: a goroutine for each stream,
// which takes events from a channel of its own, and formats, writes and
// flushes each of them.
type naive struct {
	mu      sync.Mutex // guards what follows
	streams map[string]map[chan naiveEvent]struct{}
	last    int
}

type naiveEvent struct {
	id   int
	data string
}

// serveNaive listens for streams, and returns how to publish to them.
func serveNaive(address string) publishFunc {
	n := &naive{streams: make(map[string]map[chan naiveEvent]struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /events", n.subscribe)
	go func() { log.Fatal(http.ListenAndServe(address, mux)) }()
	return n.publish
}

func (n *naive) subscribe(w http.ResponseWriter, r *http.Request) {
	events := make(chan naiveEvent, 64)
	channel := r.FormValue("channel")
	n.join(channel, events)
	defer n.leave(channel, events)

	flusher := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	if flusher.Flush() != nil {
		return
	}
	for {
		select {
		case e := <-events:
			if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.id, e.data); err != nil {
				return
			}
			if flusher.Flush() != nil {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

func (n *naive) join(channel string, events chan naiveEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.streams[channel] == nil {
		n.streams[channel] = make(map[chan naiveEvent]struct{})
	}
	n.streams[channel][events] = struct{}{}
}

func (n *naive) leave(channel string, events chan naiveEvent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.streams[channel], events)
}

// publish drops the event for streams that are 64 behind, which is four times
// as many as are ever outstanding here.
func (n *naive) publish(channel, data string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last++
	for events := range n.streams[channel] {
		select {
		case events <- naiveEvent{n.last, data}:
		default:
		}
	}
}
