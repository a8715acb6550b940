// Package caddymodule puts the hubs of package sse into Caddy. Importing it
// registers these modules:
//
//   - sse, the app that holds the hubs (app.go),
//   - http.handlers.sse, the endpoint that browsers subscribe to (subscribe.go),
//     with who they are (client.go) and their tokens (jwt.go),
//   - http.handlers.sse_api, the endpoint that backends publish to (api.go),
//   - admin.api.sse, the same under Caddy's admin API (admin.go),
//   - sse.brokers.memory, the broker that hubs have by default (broker.go),
//
// and for the Caddyfile the global option sse and the directives sse and
// sse_api (caddyfile.go).
//
// The package translates configuration, requests and lifecycle; what an event
// is, and how it reaches whom, is the business of package sse.
package caddymodule
