//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
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
	// run measures what the kit makes, and returns what that told.
	run(ctx context.Context, k *kit) (outcome, error)
}

// measurements are all there are, by their words. The empty word stands for all
// of them that do not take very long.
func measurements() map[string]measurement {
	return map[string]measurement{
		"":       new(all),
		"plain":  &fanout{fanoutKind: plainFanout},
		"tls":    &fanout{fanoutKind: tlsFanout},
		"h2":     &fanout{fanoutKind: h2Fanout},
		"peers":  &fanout{fanoutKind: peersFanout},
		"burst":  new(burst),
		"slow":   new(slow),
		"reload": new(reload),
		"storm":  new(storm),
		"redis":  new(redis),
		"record": new(record),
	}
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
	fmt.Fprintln(os.Stderr, "building Caddy, with this module and with the handler that one would write oneself")
	k, err := makeKit(ctx, dir)
	if err != nil {
		return err
	}
	return j.run(ctx, k)
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
		words := strings.Join(slices.Sorted(maps.Keys(measurements()))[1:], ", ")
		return nil, fmt.Errorf("%q is not understood; the words are %s, and flags come behind them", word, words)
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

// run measures what the kit makes, prints the report, and writes it to a file,
// with a plot beside it. It returns an error if something does not hold that
// must.
func (j *job) run(ctx context.Context, k *kit) error {
	subject, err := describe(k.caddy)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, j.of.limit())
	defer cancel()
	o, failed := j.of.run(ctx, k)
	if failed != nil && o.text == "" {
		return failed
	}
	if j.out == "" {
		j.out = filepath.Join("results", subject.name()+suffix(j.word)+".md")
	}
	if err := os.MkdirAll(filepath.Dir(j.out), 0o755); err != nil {
		return err
	}
	text := reportHead(j.command, subject) + strings.TrimSpace(o.text) + "\n" + reportChecks(o.checks)
	if len(o.panels) > 0 {
		plot := strings.TrimSuffix(j.out, ".md") + ".svg"
		if err := os.WriteFile(plot, []byte(drawPlot(o.panels)), 0o644); err != nil {
			return err
		}
		text += "\n![the same as bars](" + filepath.Base(plot) + ")\n"
	}
	fmt.Print(text)
	return errors.Join(failed, os.WriteFile(j.out, []byte(text), 0o644), missed(o.checks))
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
