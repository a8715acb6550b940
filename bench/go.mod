module github.com/caddy-sse/caddy-sse/bench

go 1.26.0

require (
	github.com/caddy-sse/caddy-sse v0.0.0
	golang.org/x/sys v0.48.0
)

replace github.com/caddy-sse/caddy-sse => ../
