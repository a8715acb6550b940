package boltbroker_test

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/boltbroker"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// The file broker holds the whole contract, and survives a kill at any moment.
func TestContract(t *testing.T) {
	ssetest.RunBroker(t, ssetest.BrokerConfig{
		Open: func(place string, keep ssetest.Retention) (sse.Broker, error) {
			return boltbroker.Open(filepath.Join(place, "record.db"), options(keep))
		},
		SetRetention: func(b sse.Broker, keep ssetest.Retention) error {
			b.(*boltbroker.Broker).SetOptions(options(keep))
			return nil
		},
		Promise: ssetest.KeepsAfterKill,
		Bubble:  true,
	})
}

// options sets limits that nothing reaches where the suite asks for none.
func options(keep ssetest.Retention) boltbroker.Options {
	o := boltbroker.Options{MaxEvents: 1 << 30, MaxAge: 1000 * time.Hour, MaxBytes: 1 << 40}
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
