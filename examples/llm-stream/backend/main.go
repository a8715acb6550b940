// Backend answers questions as a language model does, word by word, from a
// canned text. It publishes each word to a Server-Sent Events hub as it comes,
// on a channel that ends with the answer.
//
// It needs no library for that, only the address of the hub:
//
//	backend -hub http://localhost:2019/sse
//
// POST /ask with the form field question begins an answer and tells its id,
// POST /stop with the form field answer stops the answer of that id.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "localhost:3000", "`address` to listen on")
	base := flag.String("hub", "http://localhost:2019/sse", "`URL` of the hub")
	pace := flag.Duration("pace", 60*time.Millisecond, "mean time between two words")
	flag.Parse()

	if err := validate(*base, *pace); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	answers := newAnswers(ctx, newHub(*base), *pace)
	if err := serve(ctx, *listen, answers.handler()); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
	answers.wait()
}

func validate(base string, pace time.Duration) error {
	u, err := url.Parse(base)
	if err != nil {
		return fmt.Errorf("-hub: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("-hub: %q is not an http address", base)
	}
	if pace <= 0 {
		return errors.New("-pace: must be more than zero")
	}
	return nil
}

// serve returns when ctx has ended and every request is answered.
func serve(ctx context.Context, address string, handler http.Handler) error {
	server := &http.Server{
		Addr:              address,
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
	}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	slog.Info("waiting for questions", "address", address)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return server.Shutdown(last)
}
