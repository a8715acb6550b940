package ssetest

import (
	"testing"
	"testing/synctest"
	"time"
)

// TryBroker runs one case of RunBroker, whose failures it reports to the tb
// that wrap returns.
func TryBroker(t *testing.T, config BrokerConfig, name string, patience time.Duration, wrap func(*testing.T) testing.TB) {
	t.Helper()
	if runAsVictim(t, config) {
		return
	}
	test := t.Name()
	for _, c := range brokerCases() {
		if c.name != name {
			continue
		}
		run := func(t *testing.T) {
			done := make(chan struct{})
			go func() { // which FailNow ends
				defer close(done)
				c.try(wrap(t), config, test, patience)
			}()
			<-done
		}
		if c.bubble {
			synctest.Test(t, run)
		} else {
			run(t)
		}
		return
	}
	t.Fatalf("no case is called %s", name)
}
