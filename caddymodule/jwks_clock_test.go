package caddymodule_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// A fakeSource is a source of keys under the fake clock.
type fakeSource struct {
	mu      sync.Mutex // guards what follows
	body    []byte
	err     error
	delay   time.Duration
	fetches int
	open    int
}

func (s *fakeSource) fetch(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	s.fetches++
	s.open++
	if s.open > 1 {
		panic("two fetches at a time")
	}
	body, err, delay := s.body, s.err, s.delay
	s.mu.Unlock()
	select {
	case <-time.After(delay):
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	return body, err
}

func (s *fakeSource) set(err error, delay time.Duration, ids ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]jwk, len(ids))
	for i, id := range ids {
		keys[i] = publicJWK(id, testKeys().p256)
	}
	s.body, s.err, s.delay = jwkSet(keys...), err, delay
}

func (s *fakeSource) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
}

// underClock runs a test of a set under the fake clock of synctest, on which to sleep
// takes no time. It returns what was logged.
func underClock(t *testing.T, source *fakeSource, test func(t *testing.T, s caddymodule.KeySet)) []string {
	t.Helper()
	core, logs := observer.New(zapcore.DebugLevel)
	synctest.Test(t, func(t *testing.T) {
		s := caddymodule.StartKeySet(source.fetch, zap.New(core))
		test(t, s)
		if err := s.Destruct(); err != nil {
			t.Error(err)
		}
	})
	var lines []string
	for _, entry := range logs.All() {
		lines = append(lines, fmt.Sprint(entry.Level, " ", entry.Message))
	}
	return lines
}

// expectKeys looks an id up.
func expectKeys(t *testing.T, s caddymodule.KeySet, id string, want int, wantErr error) {
	t.Helper()
	if n, err := s.Find(t.Context(), id); n != want || !errors.Is(err, wantErr) {
		t.Errorf("%q: got %d keys, %v; want %d, %v", id, n, err, want, wantErr)
	}
}

var errDown = errors.New("down")

func TestJWKSRefresh(t *testing.T) {
	source := new(fakeSource)
	source.set(nil, 0, "a")
	logs := underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		expectKeys(t, s, "a", 1, nil)
		source.set(nil, 0, "b", "b", "c")
		time.Sleep(caddymodule.SetInterval - time.Second)
		expectKeys(t, s, "a", 1, nil)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := source.count(); n != 2 {
			t.Errorf("fetched %d times, want 2", n)
		}
		expectKeys(t, s, "b", 2, nil)
		expectKeys(t, s, "", 3, nil)
		expectKeys(t, s, "a", 0, nil)
		time.Sleep(time.Hour)
		if n := source.count(); n < 13 || n > 16 {
			t.Errorf("fetched %d times in an hour", n)
		}
	})
	if len(logs) > 0 {
		t.Errorf("logged %q", logs)
	}
}

func TestJWKSOutageAtStart(t *testing.T) {
	source := new(fakeSource)
	source.set(errDown, 0)
	logs := underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		expectKeys(t, s, "a", 0, caddymodule.ErrNoKeys)
		expectKeys(t, s, "", 0, caddymodule.ErrNoKeys)
		time.Sleep(time.Hour)
		expectKeys(t, s, "", 0, caddymodule.ErrNoKeys)
		if n := source.count(); n < 30 || n > 90 {
			t.Errorf("tried %d times in an hour", n)
		}
		source.set(nil, 0, "a")
		time.Sleep(2 * time.Minute)
		expectKeys(t, s, "a", 1, nil)
		expectKeys(t, s, "", 1, nil)
	})
	if want := []string{
		"error the issuer's keys cannot be fetched; until they are, no token can be checked",
		"info the issuer's keys can be fetched again",
	}; !slices.Equal(logs, want) {
		t.Errorf("logged %q, want %q", logs, want)
	}
}

func TestJWKSOutageLater(t *testing.T) {
	source := new(fakeSource)
	source.set(nil, 0, "a")
	logs := underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		expectKeys(t, s, "a", 1, nil)
		source.set(errDown, 0)
		time.Sleep(24 * time.Hour)
		expectKeys(t, s, "a", 1, nil)
		expectKeys(t, s, "b", 0, caddymodule.ErrNoKeys) // it may be new
		source.set(nil, 0, "b")
		time.Sleep(2 * time.Minute)
		expectKeys(t, s, "b", 1, nil)
		expectKeys(t, s, "a", 0, nil)
		source.set(errDown, 0)
		time.Sleep(10 * time.Minute)
	})
	warning := "warn the issuer's keys cannot be fetched; those that are known go on being used"
	if want := []string{warning, "info the issuer's keys can be fetched again", warning}; !slices.Equal(logs, want) {
		t.Errorf("logged %q, want %q", logs, want)
	}
}

func TestJWKSUnusableLoggedOnce(t *testing.T) {
	source := new(fakeSource)
	source.body = jwkSet(publicJWK("weak", testKeys().weakRSA))
	logs := underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		time.Sleep(time.Hour)
		expectKeys(t, s, "weak", 0, nil)
	})
	if want := []string{"warn some of the issuer's keys cannot be used"}; !slices.Equal(logs, want) {
		t.Errorf("logged %q, want %q", logs, want)
	}
}

// Tokens with made-up ids cause few fetches, and no wait but for these.
func TestJWKSMadeUpIDs(t *testing.T) {
	source := new(fakeSource)
	source.set(nil, 0, "a")
	underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		expectKeys(t, s, "a", 1, nil)
		start := time.Now()
		for i := range 600 {
			expectKeys(t, s, fmt.Sprint(i), 0, nil)
			time.Sleep(100 * time.Millisecond)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("the requests waited %s", took-time.Minute)
		}
		if n := source.count(); n != 7 {
			t.Errorf("fetched %d times in a minute, want the first and every 10 seconds", n)
		}
	})
}

// A server that does not answer holds requests up a little only, and a reload
// not at all.
func TestJWKSHanging(t *testing.T) {
	source := new(fakeSource)
	source.set(nil, 24*time.Hour, "a")
	underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		start := time.Now()
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() { expectKeys(t, s, "a", 0, caddymodule.ErrNoKeys) })
		}
		all.Wait()
		if took := time.Since(start); took != caddymodule.AskPatience {
			t.Errorf("waited %s, want %s", took, caddymodule.AskPatience)
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := s.Find(gone, "a"); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v for a client that is gone", err)
		}
	})
	if n := source.count(); n != 1 {
		t.Errorf("fetched %d times, want once", n)
	}
}

// A request that comes while the first fetch runs waits for it.
func TestJWKSFirstFetch(t *testing.T) {
	source := new(fakeSource)
	source.set(nil, time.Second, "a")
	underClock(t, source, func(t *testing.T, s caddymodule.KeySet) {
		expectKeys(t, s, "a", 1, nil)
		time.Sleep(caddymodule.AskInterval)
		source.set(nil, time.Second, "a", "b")
		expectKeys(t, s, "b", 1, nil)
	})
	if n := source.count(); n != 2 {
		t.Errorf("fetched %d times, want 2", n)
	}
}

// Nothing goes on when the last configuration is gone.
func TestJWKSDestructWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := caddymodule.StartKeySet(func(ctx context.Context) ([]byte, error) {
			<-ctx.Done()
			time.Sleep(time.Second) // to clean up
			return nil, ctx.Err()
		}, zap.NewNop())
		start := time.Now()
		if err := s.Destruct(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("returned after %s, want 1s", took)
		}
	})
}
