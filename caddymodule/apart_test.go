package caddymodule_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// TestApart promises that what is done on a goroutine of its own ends as if it had
// been done here: a panic there must not end the process.
func TestApart(t *testing.T) {
	broken := errors.New("broken")
	if err := caddymodule.Apart(func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got the error %v", err)
	}
	for _, value := range []any{"out of luck", http.ErrAbortHandler} {
		failure := panicOf(func() { _ = caddymodule.Apart(func() error { panic(value) }) })
		text := fmt.Sprint(failure)
		switch {
		case value == http.ErrAbortHandler && failure != value:
			t.Errorf("got the panic %v, which the server does not know", failure)
		case value != http.ErrAbortHandler && (!strings.HasPrefix(text, "out of luck") || !strings.Contains(text, "apart_test.go")):
			t.Errorf("got the panic %s, want %v and where it was", text, value)
		}
	}
}

func panicOf(do func()) (failure any) {
	defer func() { failure = recover() }()
	do()
	return nil
}
