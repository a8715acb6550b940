package redisbroker_test

import (
	"os"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// contractURL names the variable by which a process that is to be killed finds the
// server of its parent.
const contractURL = "REDISBROKER_CONTRACT_URL"

// The Redis broker holds the whole contract, and a kill of any node at any moment does no
// harm.
func TestContract(t *testing.T) {
	url := os.Getenv(contractURL)
	if url == "" {
		url = redistest.Start(t).URL()
		t.Setenv(contractURL, url)
	}
	ssetest.RunBroker(t, ssetest.BrokerConfig{
		Open: func(place string, keep ssetest.Retention) (sse.Broker, error) {
			return redisbroker.Open(contractOptions(url, place, keep))
		},
		SetRetention: func(b sse.Broker, keep ssetest.Retention) error {
			b.(*redisbroker.Broker).SetOptions(contractOptions("", "", keep))
			return nil
		},
		Promise: ssetest.KeepsAfterKill,
		Remote:  true,
	})
}

// contractOptions sets limits that nothing reaches where the suite asks for none.
func contractOptions(url, place string, keep ssetest.Retention) redisbroker.Options {
	o := redisbroker.Options{URL: url, Hub: place, MaxEvents: 1 << 30, MaxAge: 1000 * time.Hour, MaxBytes: 1 << 40}
	if keep.Entries > 0 {
		o.MaxEvents = keep.Entries
	}
	if keep.Age > 0 {
		o.MaxAge = keep.Age
	}
	if keep.Bytes > 0 {
		o.MaxBytes = keep.Bytes
	}
	return o
}
