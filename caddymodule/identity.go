package caddymodule

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A routeKey is a route's identity: what it is configured to do, and where. A
// route of which any of it changed is another one, so that no stream goes on
// under rules that are no longer configured.
type routeKey struct{ hub, config, place string }

// place says where the handler that is being set up stands: the addresses of
// its server, and the matchers of the routes around it. It is empty outside a
// server.
func place(ctx caddy.Context) (string, error) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return "", nil
	}
	var b strings.Builder
	fmt.Fprintln(&b, server.Listen)
	if err := writeMatchers(&b, server.Routes); err != nil {
		return "", err
	}
	for _, module := range ctx.Modules() {
		if around, ok := module.(*caddyhttp.Subroute); ok {
			if err := writeMatchers(&b, around.Routes); err != nil {
				return "", err
			}
		}
	}
	return b.String(), nil
}

// writeMatchers writes the matchers of the route whose handlers are being set
// up now. It is the first that still has their raw configuration: Caddy takes
// it away from each route as soon as it is through with it.
func writeMatchers(b *strings.Builder, routes caddyhttp.RouteList) error {
	for _, r := range routes {
		if len(r.HandlersRaw) == 0 {
			continue
		}
		matchers, err := json.Marshal(r.MatcherSets)
		if err != nil {
			return fmt.Errorf("identify the route by its matchers: %w", err)
		}
		fmt.Fprintf(b, "%s\n", matchers)
		return nil
	}
	return nil
}
