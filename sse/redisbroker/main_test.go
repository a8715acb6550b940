package redisbroker_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

func TestMain(m *testing.M) { ssetest.Main(m) }
