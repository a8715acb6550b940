// Package caddysse is the Caddy plugin: importing it registers all modules of
// package caddymodule. It stands at the root because that is the path that
// xcaddy imports:
//
//	xcaddy build --with github.com/caddy-sse/caddy-sse
package caddysse

import (
	_ "github.com/caddy-sse/caddy-sse/caddymodule" // registers the modules
)
