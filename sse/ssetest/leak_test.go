package ssetest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

func TestMain(m *testing.M) { ssetest.Main(m) }

func waitFor(started chan<- struct{}, done <-chan struct{}) {
	close(started)
	<-done
}

func TestLeaked(t *testing.T) {
	before := ssetest.Goroutines()
	started, done := make(chan struct{}), make(chan struct{})
	go waitFor(started, done)
	<-started // before that its stack does not name it

	for _, tc := range []struct {
		name   string
		before map[string]string
		ignore []string
		want   bool
	}{
		{"waits", before, nil, true},
		{"ignored", before, []string{"no such function", "ssetest_test.waitFor"}, false},
		{"there before", ssetest.Goroutines(), nil, false},
	} {
		left := strings.Join(ssetest.Leaked(tc.before, tc.ignore, 0), "\n\n")
		if strings.Contains(left, "ssetest_test.waitFor") != tc.want {
			t.Errorf("%s: found %v, want %v, in %q", tc.name, !tc.want, tc.want, left)
		}
	}
	time.AfterFunc(50*time.Millisecond, func() { close(done) })
	if left := ssetest.Leaked(before, nil, 5*time.Second); len(left) > 0 {
		t.Errorf("a goroutine that ends is reported: %q", left)
	}
}
