package caddymodule_test

import (
	"testing"

	_ "github.com/caddyserver/caddy/v2/modules/standard" // the directives around ours

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

func TestMain(m *testing.M) {
	ssetest.Main(caddytest.Main{M: m},
		// caddy.Stop leaves the last configuration's admin endpoint running.
		"caddy/v2.replaceLocalAdminServer",
		// The writer of log files never ends the goroutine that compresses old ones.
		"timberjack.(*Logger).millRun",
	)
}
