//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A measurement is what one word of the command line stands for.
type measurement interface {
	// flags defines its flags.
	flags(*flag.FlagSet)
	// check returns what is wrong with their values.
	check() error
	// limit bounds the time that it takes, whatever happens.
	limit() time.Duration
	// run measures with a Caddy that was built, and returns the report
	// behind its head.
	run(ctx context.Context, caddy string) (string, error)
}

// measurements are all there are, by their words. That of the empty word is the
// one without a word.
func measurements() map[string]measurement {
	return map[string]measurement{"": new(settings), "storm": new(storm), "record": new(record)}
}

// A job is a measurement and where its report goes.
type job struct {
	word    string
	of      measurement
	command string // that stands for it
	out     string // empty is a file in results
}

func main() {
	if serveChild(os.Args[1:]) {
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := runArguments(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func runArguments(ctx context.Context, arguments []string) (err error) {
	j, err := readArguments(arguments)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "caddy-sse-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintln(os.Stderr, "building Caddy")
	caddy, err := buildCaddy(ctx, dir)
	if err != nil {
		return err
	}
	return j.run(ctx, caddy)
}

// readArguments returns what the command line asks for: a word, if it begins
// with one, and flags.
func readArguments(arguments []string) (*job, error) {
	var word string
	if len(arguments) > 0 && !strings.HasPrefix(arguments[0], "-") {
		word, arguments = arguments[0], arguments[1:]
	}
	m, ok := measurements()[word]
	if !ok {
		return nil, fmt.Errorf("%q is not understood; the words are storm and record, and flags come behind them", word)
	}
	j := &job{word: word, of: m}
	f := flag.NewFlagSet(strings.TrimSpace("bench "+word), flag.ContinueOnError)
	m.flags(f)
	j.command = strings.TrimSpace("go run . " + word)
	f.StringVar(&j.out, "out", "", "the file to write (default results/<date>-<commit>"+suffix(word)+".md)")
	if err := f.Parse(arguments); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q is not understood; behind the word there are only flags", f.Arg(0))
	}
	f.VisitAll(func(of *flag.Flag) {
		if value := of.Value.String(); of.Name != "out" && value != "" {
			j.command += " -" + of.Name + " " + value
		}
	})
	return j, m.check()
}

func suffix(word string) string {
	if word == "" {
		return ""
	}
	return "-" + word
}

// run measures a Caddy that was built, prints the report and writes it to a
// file.
func (j *job) run(ctx context.Context, caddy string) error {
	subject, err := describe(caddy)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, j.of.limit())
	defer cancel()
	text, err := j.of.run(ctx, caddy)
	if err != nil {
		return err
	}
	text = reportHead(j.command, subject) + text
	fmt.Print(text)
	if j.out == "" {
		j.out = filepath.Join("results", subject.name()+suffix(j.word)+".md")
	}
	if err := os.MkdirAll(filepath.Dir(j.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(j.out, []byte(text), 0o644)
}

// checkSize returns what is wrong with a size of events.
func checkSize(size int) error {
	if size < stampBytes {
		return fmt.Errorf("size must be at least %d, which an event's time stamp takes", stampBytes)
	}
	return nil
}

// checkFiles returns an error if a process may not open that many files. The
// os package has raised the soft limit to the hard one, here and in every
// server.
func checkFiles(need int, what string) error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	need += 100
	if limit.Max < uint64(need) {
		return fmt.Errorf("%s need %d files, and this process may open %d: use fewer, or raise ulimit -n", what, need, limit.Max)
	}
	return nil
}

// recordDir makes a directory for records, in one that may be empty for the
// system's own. The caller removes it.
func recordDir(in string) (dir string, remove func() error, err error) {
	dir, err = os.MkdirTemp(in, "caddy-sse-record-")
	return dir, func() error { return os.RemoveAll(dir) }, err
}
