package ssetest_test

import (
	"errors"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// journalConfig is the configuration of the journal, which promises all there is.
func journalConfig() ssetest.BrokerConfig {
	return ssetest.BrokerConfig{
		Open:         func(place string, keep ssetest.Retention) (sse.Broker, error) { return openJournal(place, keep) },
		SetRetention: func(b sse.Broker, keep ssetest.Retention) error { return b.(*journal).setRetention(keep) },
		Promise:      ssetest.KeepsAfterKill,
		Bubble:       true,
	}
}

// A broker that is right passes, whatever it promises and whatever limits it
// has.
func TestRunBroker(t *testing.T) {
	t.Run("all that there is", func(t *testing.T) { ssetest.RunBroker(t, journalConfig()) })

	t.Run("of another process", func(t *testing.T) {
		config := journalConfig()
		config.Open = func(place string, keep ssetest.Retention) (sse.Broker, error) {
			j, err := openJournal(place, keep)
			if err != nil {
				return nil, err
			}
			return newFaulty(j, (*faulty).deliversLater), nil
		}
		config.SetRetention = nil
		config.Promise, config.Remote, config.Bubble = ssetest.KeepsAfterClose, true, false
		ssetest.RunBroker(t, config)
	})

	t.Run("without limits", func(t *testing.T) {
		config := journalConfig()
		config.Open = func(place string, keep ssetest.Retention) (sse.Broker, error) {
			if keep != (ssetest.Retention{}) {
				return nil, errors.ErrUnsupported
			}
			return openJournal(place, keep)
		}
		config.SetRetention = func(sse.Broker, ssetest.Retention) error { return errors.ErrUnsupported }
		config.Promise = ssetest.KeepsUntilClose
		ssetest.RunBroker(t, config)
	})
}
