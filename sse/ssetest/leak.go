package ssetest

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"
)

// leakTimeout is how long goroutines may take to end after the tests. Those of
// net/http end a little after the connection that they serve.
const leakTimeout = 5 * time.Second

// Main runs the tests and exits, with status 1 if goroutines outlive them that
// were not there before; their stacks are printed. Use it in packages whose
// tests open sockets, which testing/synctest cannot watch over:
//
//	func TestMain(m *testing.M) { ssetest.Main(m) }
//
// A goroutine is left alone if its stack contains one of the ignored strings,
// such as the name of a function of a library that never ends what it starts.
// Idle connections of http.DefaultTransport are closed; transports of the tests'
// own must be closed by them.
func Main(m interface{ Run() int }, ignore ...string) {
	before := goroutines()
	code := m.Run()
	if code == 0 {
		http.DefaultClient.CloseIdleConnections()
		if left := leaked(before, ignore, leakTimeout); len(left) > 0 {
			fmt.Fprintf(os.Stderr, "ssetest: %d goroutines outlive the tests:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// leaked returns the stacks of the goroutines that are not in before and still
// there after the timeout. It polls: nothing tells when a goroutine has ended.
func leaked(before map[string]string, ignore []string, timeout time.Duration) []string {
	// os/signal never ends the goroutine that waits for signals.
	ignore = append([]string{"os/signal.signal_recv", "os/signal.loop"}, ignore...)
	deadline := time.Now().Add(timeout)
	for {
		var left []string
		for id, stack := range goroutines() {
			_, known := before[id]
			if !known && !containsAny(stack, ignore) {
				left = append(left, stack)
			}
		}
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// goroutines returns the stacks of all goroutines but the runtime's own, by the
// goroutines' ids, which the runtime uses once.
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	stacks := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		id, _, _ := strings.Cut(stack, " [") // goroutine 7 [select]:
		stacks[id] = stack
	}
	return stacks
}

func containsAny(s string, substrings []string) bool {
	for _, sub := range substrings {
		if strings.Contains(s, sub) {
			return true
		}
	}
	return false
}
