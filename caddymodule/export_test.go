package caddymodule

import (
	"io"
	"net/http"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/sse"
)

var (
	ParseJSON = parseJSON
	ParseForm = parseForm
)

// ProblemStatus returns the status of the problem in an error, zero if there
// is none.
func ProblemStatus(err error) int {
	if p, ok := err.(*problem); ok {
		return p.Status
	}
	return 0
}

// Handler answers the requests of the API for a hub, without Caddy around it.
func Handler(hub *sse.Hub, maxBody int64, ending <-chan struct{}) http.Handler {
	live := &liveHub{name: "test"}
	live.hub.Store(hub)
	q := requests{hub: live, maxBody: maxBody, ending: ending}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := q.serve(w, r, r.URL.Path); err != nil {
			_ = writeProblem(w, asProblem(err))
		}
	})
}

// A Line is a line of a body as it is published or, with a status, refused.
type Line struct {
	Number int
	Text   string
	Status int
}

// ReadLines reads a body as the API does.
func ReadLines(body io.Reader, limit int64) (found []Line) {
	reader := newLineReader(body, limit)
	go reader.run()
	for {
		lines := reader.take()
		if len(lines) == 0 {
			return found
		}
		for _, l := range lines {
			status := 0
			if l.refused != nil {
				status = l.refused.Status
			}
			found = append(found, Line{l.number, string(l.text), status})
		}
	}
}

// ParseChange reads the body of a change, and returns the names of what it is
// about.
func ParseChange(body []byte) (subscribe, unsubscribe []string, err error) {
	c, err := parseChange(body)
	return c.Subscribe, c.Unsubscribe, err
}

// OriginAllowed reports whether a page of an origin may use a route that names
// others, or why these make no sense.
func OriginAllowed(named []string, origin string) (bool, error) {
	if err := origins(named).check(); err != nil {
		return false, err
	}
	return origins(named).named(origin), nil
}

// Expand returns what a template stands for, where every placeholder has a value.
func Expand(source, value string, limit int) ([]string, error) {
	t, err := parseTemplate(source)
	if err != nil {
		return nil, err
	}
	repl := caddy.NewEmptyReplacer()
	repl.Map(func(string) (any, bool) { return value, true })
	names, _, _ := (&expansion{repl: repl, limit: limit, alone: wildcardAlone, user: []string{"user"}}).of([]template{t})
	return names, nil
}

// SpendTooMuch takes one event out of a bucket of so many, has goroutines ask for
// more than is left again and again, and returns how many are left then.
func SpendTooMuch(burst, goroutines, times int) (left float64) {
	q := requests{bucket: newBuckets(Rate{Events: 0.001, Burst: burst}).of("")}
	_ = q.spend(1) // it is there
	var asking sync.WaitGroup
	for range goroutines {
		asking.Go(func() {
			for range times {
				_ = q.spend(burst) // it is refused
			}
		})
	}
	asking.Wait()
	return q.bucket.Tokens()
}

// IsLean reports whether a writer is passed by once it has been flushed.
func IsLean(w http.ResponseWriter) (bool, error) {
	l := newLeanWriter(w)
	if l == nil {
		return false, nil
	}
	l.WriteHeader(http.StatusOK)
	err := l.FlushError()
	return l.lean, err
}

var Apart = apart

// LeanWriters returns how many writers are looked at for who does not read.
func LeanWriters() int {
	leanWriters.mu.Lock()
	defer leanWriters.mu.Unlock()
	return len(leanWriters.writers)
}
