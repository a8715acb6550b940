package caddymodule

import (
	"fmt"
	"net/http"
	"runtime/debug"
)

// apart calls a function on a goroutine of its own, and waits for it. It is for
// streams, of which there are many that wait. Go shrinks a stack when less than a
// quarter of it is in use, and what is around a handler uses more than 5 KiB: once it
// has grown to 16 KiB, to answer the request or to write, it stays so. What opens a
// stream therefore runs on a goroutine that ends, and the stream on one that needs 2
// to 4 KiB, so that the handler's stays at 8.
func apart(do func() error) (err error) {
	var failure any
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			failure = recover()
			if failure != nil && failure != http.ErrAbortHandler { //nolint:errorlint // as net/http compares it
				failure = fmt.Sprintf("%v\n\n%s", failure, debug.Stack())
			}
		}()
		err = do()
	}()
	<-done
	if failure != nil {
		panic(failure) // for the server, as if it had happened here
	}
	return err
}
