package ssetest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// The variables of the environment that make a test binary the victim of a
// kill: the name of the test that calls RunBroker, the place of the record, the
// number of the process, and how many entries are kept.
const (
	victimTest  = "SSETEST_VICTIM"
	victimPlace = "SSETEST_VICTIM_PLACE"
	victimLife  = "SSETEST_VICTIM_LIFE"
	victimKeep  = "SSETEST_VICTIM_KEEP"
)

// victimMark begins the lines that the victim writes for its parent.
const victimMark = "ssetest-victim"

// publishersPerVictim is how many publish at once.
const publishersPerVictim = 4

// runAsVictim publishes until the process is killed, and reports whether that
// was to be done.
func runAsVictim(t testing.TB, config BrokerConfig) bool {
	t.Helper()
	if os.Getenv(victimTest) != t.Name() {
		return false
	}
	go func() {
		io.Copy(io.Discard, os.Stdin) // ends with the parent
		os.Exit(3)
	}()
	keep, _ := strconv.Atoi(os.Getenv(victimKeep))
	life, _ := strconv.Atoi(os.Getenv(victimLife))
	place := os.Getenv(victimPlace)
	broker, err := config.Open(place, Retention{Entries: keep})
	if errors.Is(err, errors.ErrUnsupported) {
		broker, err = config.Open(place, Retention{})
	}
	if err != nil {
		fmt.Printf("%s failed Open: %v\n", victimMark, err)
		return true
	}
	state, err := broker.State(context.Background())
	if err != nil {
		fmt.Printf("%s failed State: %v\n", victimMark, err)
		return true
	}
	fmt.Printf("%s open %s\n", victimMark, state.Newest.Epoch)
	var mu sync.Mutex // lines must not mix
	var wg sync.WaitGroup
	for publisher := range publishersPerVictim {
		wg.Go(func() {
			for n := 0; ; n++ {
				name := batchName{life, publisher, n}
				positions, err := broker.Publish(context.Background(), name.batch())
				mu.Lock()
				if err != nil {
					fmt.Printf("%s failed Publish: %v\n", victimMark, err)
				} else {
					fmt.Printf("%s acked %d %d %v\n", victimMark, publisher, n, positions)
				}
				mu.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	return true
}

// kill starts a process that publishes, kills it at a random moment, and notes
// what it acknowledged until then.
func (w *witness) kill() {
	w.Helper()
	for publisher := range publishersPerVictim {
		w.last[batchName{life: w.life, publisher: publisher}] = -1
	}
	cmd, stdout := w.startVictim()
	kill := func() { cmd.Process.Kill() }
	defer cmd.Wait() // says that it was killed
	defer kill()
	// The moment counts from what comes first of its kind: some are killed
	// while they open the record, some before they acknowledged anything.
	cause := []string{"start", "open", "acked", "acked"}[w.r.IntN(4)]
	moment := time.Duration(w.r.IntN(150)) * time.Millisecond
	timer := time.AfterFunc(defaultPatience, kill)
	defer timer.Stop()
	armed := false
	event := func(word string) {
		if word == cause && !armed {
			armed = true
			timer.Reset(moment)
		}
	}
	event("start")
	for lines := bufio.NewReader(stdout); ; {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // a line without its end was not written whole
		}
		text, ours := strings.CutPrefix(strings.TrimSpace(line), victimMark+" ")
		if !ours {
			continue
		}
		word, rest, _ := strings.Cut(text, " ")
		event(word)
		switch word {
		case "open":
			w.sameEpoch(rest)
		case "acked":
			w.note(rest)
		default:
			w.Errorf("the process that is to be killed: %s", text)
		}
	}
	if !armed {
		w.Errorf("the process that is to be killed ended, or %s passed, before %q", defaultPatience, cause)
	}
	if w.Failed() {
		w.FailNow()
	}
}

func (w *witness) startVictim() (*exec.Cmd, io.Reader) {
	w.Helper()
	binary, err := os.Executable()
	if err != nil {
		w.Fatal(err)
	}
	var pattern []string
	for part := range strings.SplitSeq(w.test, "/") {
		pattern = append(pattern, "^"+regexp.QuoteMeta(part)+"$")
	}
	cmd := exec.Command(binary, "-test.run="+strings.Join(pattern, "/"), "-test.timeout=5m")
	cmd.Env = append(os.Environ(),
		victimTest+"="+w.test,
		victimPlace+"="+w.place,
		fmt.Sprintf("%s=%d", victimLife, w.life),
		fmt.Sprintf("%s=%d", victimKeep, w.keep.Entries),
	)
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // open as long as this process lives
		w.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		w.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		w.Fatal(err)
	}
	return cmd, stdout
}

// note takes down an acknowledgement: publisher, number, and positions in
// brackets.
func (w *witness) note(text string) {
	w.Helper()
	fields := strings.Fields(strings.NewReplacer("[", " ", "]", " ").Replace(text))
	name := batchName{life: w.life}
	name.publisher, _ = strconv.Atoi(fields[0])
	name.n, _ = strconv.Atoi(fields[1])
	positions := make([]sse.Position, 0, len(fields))
	for _, field := range fields[2:] {
		p, err := sse.ParsePosition(field)
		if err != nil {
			w.Fatalf("the process that is to be killed wrote %q: %v", text, err)
		}
		positions = append(positions, p)
	}
	if len(positions) != len(name.batch()) {
		w.Fatalf("%v was acknowledged with %d positions", name, len(positions))
	}
	w.acked[name] = positions
	w.count++
	w.last[batchName{life: name.life, publisher: name.publisher}] = name.n
}
