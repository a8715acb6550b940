package main

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

func init() {
	caddy.RegisterModule(Subscribe{})
	caddy.RegisterModule(Publish{})
	for name, handler := range map[string]caddyhttp.MiddlewareHandler{"naive": Subscribe{}, "naive_publish": Publish{}} {
		httpcaddyfile.RegisterHandlerDirective(name, func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
			return handler, withoutArguments(h.Dispenser)
		})
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "respond")
	}
}

func withoutArguments(d *caddyfile.Dispenser) error {
	d.Next()
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}

// Subscribe is where browsers subscribe: a goroutine for each stream takes
// events from a channel of its own, and formats, writes and flushes each of
// them.
type Subscribe struct{}

// CaddyModule implements caddy.Module.
func (Subscribe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.naive", New: func() caddy.Module { return new(Subscribe) }}
}

func (Subscribe) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	events := make(chan event, 64)
	channel := r.FormValue("channel")
	all.join(channel, events)
	defer all.leave(channel, events)

	flusher := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	if err := flusher.Flush(); err != nil {
		return err
	}
	for {
		select {
		case e := <-events:
			if _, err := fmt.Fprintf(w, "id: %d\ndata: %s\n\n", e.id, e.data); err != nil {
				return err
			}
			if err := flusher.Flush(); err != nil {
				return err
			}
		case <-r.Context().Done():
			return nil
		}
	}
}

// Publish is where backends publish: a POST to a path that ends in the channel.
type Publish struct{}

// CaddyModule implements caddy.Module.
func (Publish) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.naive_publish", New: func() caddy.Module { return new(Publish) }}
}

func (Publish) ServeHTTP(_ http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	data, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	all.publish(path.Base(r.URL.Path), string(data))
	return nil
}

// A hub knows who listens to what.
type hub struct {
	mu      sync.Mutex // guards what follows
	streams map[string]map[chan event]struct{}
	last    int
}

type event struct {
	id   int
	data string
}

// all is the one hub, which outlives reloads.
var all = hub{streams: make(map[string]map[chan event]struct{})}

func (h *hub) join(channel string, events chan event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[channel] == nil {
		h.streams[channel] = make(map[chan event]struct{})
	}
	h.streams[channel][events] = struct{}{}
}

func (h *hub) leave(channel string, events chan event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams[channel], events)
	if len(h.streams[channel]) == 0 {
		delete(h.streams, channel)
	}
}

// publish drops the event for streams that are 64 behind, which is four times
// as many as are ever outstanding here.
func (h *hub) publish(channel, data string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	for events := range h.streams[channel] {
		select {
		case events <- event{h.last, data}:
		default:
		}
	}
}

// Interface guards
var (
	_ caddyhttp.MiddlewareHandler = Subscribe{}
	_ caddyhttp.MiddlewareHandler = Publish{}
)
