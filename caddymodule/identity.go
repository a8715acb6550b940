package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A routeKey is a route's identity: where it is, and of which hub. All else that is
// configured can change while its streams live on, see [route.apply].
type routeKey struct {
	hub, base, place string
	nth              int // of those in the same place, of which only the first is ever reached
}

// acrossNodes is the same for the route on other machines, the addresses of which may
// be others.
func (k routeKey) acrossNodes() string {
	_, matchers, _ := strings.Cut(k.place, "\n")
	return fmt.Sprintf("%s %d\n%s", k.base, k.nth, matchers)
}

// places counts those that cannot be told from one configuration to the next.
var places atomic.Uint64

// place says where the handler that is being set up stands: the addresses of
// its server, and the matchers of the routes around it. Where that cannot be
// known, as in a named route or within another handler, each configuration has
// a place of its own, and the streams end with it.
func place(ctx caddy.Context) string {
	var b strings.Builder
	if writePlace(&b, ctx) {
		return b.String()
	}
	return fmt.Sprint("unknown ", places.Add(1))
}

func writePlace(b *strings.Builder, ctx caddy.Context) (known bool) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return false
	}
	fmt.Fprintln(b, server.Listen)
	outermost := inProgress(server.Routes)
	if outermost == nil && server.Errors != nil {
		outermost = inProgress(server.Errors.Routes)
		fmt.Fprintln(b, "errors")
	}
	if outermost == nil || !writeMatchers(b, outermost.MatcherSets) {
		return false
	}
	for _, module := range ctx.Modules() {
		switch around := module.(type) {
		case *caddyhttp.App, *Subscribe:
		case *caddyhttp.Subroute:
			r := inProgress(around.Routes)
			if r == nil || !writeMatchers(b, r.MatcherSets) {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// inProgress returns the route whose handlers are being set up now. It is the
// first that still has their raw configuration: Caddy takes it away from each
// route as soon as it is through with it.
func inProgress(routes caddyhttp.RouteList) *caddyhttp.Route {
	for i := range routes {
		if len(routes[i].HandlersRaw) > 0 {
			return &routes[i]
		}
	}
	return nil
}

// writeMatchers writes what the matchers are and say. The raw configuration of
// those within `not` is gone by now, so that their own JSON would be empty.
func writeMatchers(b *strings.Builder, sets caddyhttp.MatcherSets) (known bool) {
	for _, set := range sets {
		fmt.Fprintln(b, "set")
		for _, matcher := range set {
			if not, ok := matcher.(*caddyhttp.MatchNot); ok {
				fmt.Fprintln(b, "not")
				for _, inner := range not.MatcherSets {
					if !writeMatchers(b, caddyhttp.MatcherSets{inner}) {
						return false
					}
				}
				continue
			}
			text, err := json.Marshal(matcher)
			if err != nil {
				return false
			}
			fmt.Fprintf(b, "%T %s\n", matcher, text)
		}
	}
	return true
}
