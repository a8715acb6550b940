package sse_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// The memory broker keeps nothing, and what is left of the contract it holds.
func TestMemoryBrokerContract(t *testing.T) {
	ssetest.RunBroker(t, ssetest.BrokerConfig{
		Open:   func(string, ssetest.Retention) (sse.Broker, error) { return sse.NewMemoryBroker(), nil },
		Bubble: true,
	})
}
