package caddymodule

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// keySets outlive configurations, so that a reload while the keys cannot be
// fetched does not lose them: *keySet by URL.
var keySets = caddy.NewUsagePool()

// errNoKeys is matched when the keys that a token is to be checked with could
// not be obtained: nobody knows whether it is good, and its bearer should come
// back later. It is a problem of the status 503 that says so, and is shared: it
// must not be changed.
var errNoKeys error = problemf(http.StatusServiceUnavailable,
	"the issuer's keys, with which tokens are checked, cannot be had at the moment; come back later").with("Retry-After", retryAfter)

// When a set is fetched.
const (
	setInterval   = 5 * time.Minute  // after it was fetched
	setBackoff    = time.Second      // after the first failure; it doubles
	maxSetBackoff = time.Minute      // for the failure after
	askInterval   = 10 * time.Second // least between two fetches that tokens cause
	askPatience   = 2 * time.Second  // for how long a request waits for a fetch
)

// A keySet is a JSON Web Key Set that is fetched again and again. Its methods
// may be called concurrently.
type keySet struct {
	source setSource
	log    func() *zap.Logger
	stop   context.CancelFunc
	wake   chan struct{} // holds one
	run    sync.WaitGroup

	mu      sync.Mutex    // guards what follows
	keys    []*verifyKey  // replaced, never changed; nil until they are obtained
	unused  string        // what of the set cannot be used
	failing bool          // whether the last fetch failed
	attempt chan struct{} // closed when the fetch is over that runs or was asked for; nil without one
	asked   time.Time     // when a token last made us fetch
}

// A setSource fetches a set of keys.
type setSource interface {
	fetch(ctx context.Context) (fetchedSet, error)
	close()
}

// A fetchedSet is a set as it was fetched.
type fetchedSet struct {
	keys   []*verifyKey
	unused []string // a reason for each key that cannot be used
}

// acquireKeySet returns the set of that URL. The caller owes the pool a Delete.
func acquireKeySet(address string) (*keySet, error) {
	value, _, err := keySets.LoadOrNew(address, func() (caddy.Destructor, error) {
		u, err := url.Parse(address)
		if err != nil {
			return nil, err // checkSetURL has parsed it
		}
		// The default logger of the moment: the set outlives those of a
		// configuration. The address may have something secret in its query.
		return startKeySet(newHTTPSource(address), func() *zap.Logger {
			return caddy.Log().Named("sse.jwks").With(zap.String("host", u.Host), zap.String("path", u.Path))
		}), nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*keySet), nil
}

// startKeySet returns a set that is being fetched. Destruct ends that.
func startKeySet(source setSource, log func() *zap.Logger) *keySet {
	ctx, stop := context.WithCancel(context.Background())
	s := &keySet{
		source:  source,
		log:     log,
		stop:    stop,
		wake:    make(chan struct{}, 1),
		attempt: make(chan struct{}),
	}
	s.run.Go(func() { s.keepFresh(ctx) })
	return s
}

// Destruct implements caddy.Destructor. It returns when nothing is fetched any
// more.
func (s *keySet) Destruct() error {
	s.stop()
	s.run.Wait()
	s.source.close()
	return nil
}

// keepFresh is the only one that fetches, so that there is one fetch at a time.
func (s *keySet) keepFresh(ctx context.Context) {
	defer s.abandon()
	backoff := setBackoff
	for {
		set, err := s.source.fetch(ctx)
		if ctx.Err() != nil {
			return
		}
		delay := setInterval
		if err == nil {
			s.succeed(set)
			backoff = setBackoff
		} else {
			s.fail(err)
			// Servers that lost the same issuer must not come back in step.
			delay = backoff + rand.N(backoff/2)
			backoff = min(2*backoff, maxSetBackoff)
		}
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-s.wake:
		case <-timer.C:
		}
		timer.Stop()
		s.begin()
	}
}

// begin notes that a fetch runs.
func (s *keySet) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt == nil {
		s.attempt = make(chan struct{})
	}
	select {
	case <-s.wake: // it is being done
	default:
	}
}

// endLocked tells those who wait that the fetch is over.
func (s *keySet) endLocked() {
	close(s.attempt)
	s.attempt = nil
}

// abandon tells those who wait that there will be no fetch.
func (s *keySet) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failing = true
	if s.attempt != nil {
		s.endLocked()
	}
}

func (s *keySet) succeed(set fetchedSet) {
	unused := strings.Join(set.unused, "; ")
	s.mu.Lock()
	recovered, changed := s.failing, unused != s.unused
	s.keys, s.failing, s.unused = set.keys, false, unused
	s.endLocked()
	s.mu.Unlock()
	if recovered {
		s.log().Info("the issuer's keys can be fetched again", zap.Int("keys", len(set.keys)))
	}
	if changed && unused != "" {
		s.log().Warn("some of the issuer's keys cannot be used", zap.String("reasons", unused), zap.Int("keys", len(set.keys)))
	}
}

func (s *keySet) fail(err error) {
	s.mu.Lock()
	already, known, have := s.failing, len(s.keys), s.keys != nil
	s.failing = true
	s.endLocked()
	s.mu.Unlock()
	switch {
	case already:
	case have:
		s.log().Warn("the issuer's keys cannot be fetched; those that are known go on being used",
			zap.Int("keys", known), zap.Error(err))
	default:
		s.log().Error("the issuer's keys cannot be fetched; until they are, no token can be checked", zap.Error(err))
	}
}

// find returns the keys of an id, or all if that is empty. For an id that is
// not there it fetches the set again, if that is not too soon, and waits for it
// a little.
func (s *keySet) find(ctx context.Context, id string) ([]*verifyKey, error) {
	keys, obtained := s.lookUp(id)
	if len(keys) > 0 || (obtained && id == "") {
		return keys, nil
	}
	if fetched := s.ask(); fetched != nil {
		patience := time.NewTimer(askPatience)
		defer patience.Stop()
		select {
		case <-fetched:
		case <-patience.C:
			return nil, errNoKeys
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		keys, _ = s.lookUp(id)
	}
	if len(keys) == 0 && s.unsure() {
		return nil, errNoKeys
	}
	return keys, nil
}

func (s *keySet) lookUp(id string) (keys []*verifyKey, obtained bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == "" {
		return s.keys, s.keys != nil
	}
	for _, k := range s.keys {
		if k.id == id {
			keys = append(keys, k)
		}
	}
	return keys, s.keys != nil
}

// unsure reports whether a key that we do not know may be in the set.
func (s *keySet) unsure() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing || s.keys == nil
}

// ask has the set fetched, and returns what is closed when that is over, nil if
// it is too soon: whoever makes up ids must not make us bother the issuer.
func (s *keySet) ask() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt != nil {
		return s.attempt
	}
	if !s.asked.IsZero() && time.Since(s.asked) < askInterval {
		return nil
	}
	s.asked = time.Now()
	s.attempt = make(chan struct{})
	s.wake <- struct{}{} // never blocks: begin empties it, and there is one attempt at a time
	return s.attempt
}
