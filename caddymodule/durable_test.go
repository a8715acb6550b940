package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse"
)

// bolt is the global option for a hub whose record is in a file of the test.
func bolt(t *testing.T, settings string) (option, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "records", "sse.db")
	return fmt.Sprintf("sse {\n broker bolt %s {\n max_events 1000000\n %s\n }\n history 10 1h\n }", path, settings), path
}

// TestKill holds that nothing that was acknowledged is lost when Caddy is
// killed: a browser that comes back by itself gets every event once and in
// order, from before, between and after the kills, and is told of no hole. What
// is published again by its id after a kill is not delivered again.
func TestKill(t *testing.T) {
	site := newHubSite(t)
	option, _ := bolt(t, "")
	caddyfile := strings.Replace(site.eventSourceCaddyfile(t, "retry 100ms"), "\tadmin off\n", "\tadmin off\n\t"+option+"\n", 1)
	process := site.run(t, caddyfile)
	page := openBrowser(t)
	page.open(site.url(wires[0], "/"))
	site.awaitStreams(t, 1)

	var want []string
	publish := func(n int) {
		for range n {
			data := fmt.Sprint(len(want))
			want = append(want, data)
			site.call(t, "POST", "/publish/news?id=event-"+data, "text/plain", data, nil)
		}
	}
	publish(30)
	for range 3 {
		if err := process.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := process.Wait(patience); err == nil {
			t.Fatal("it ended by itself")
		}
		process = site.run(t, caddyfile)
		again := want[len(want)-3:]
		publish(30) // while the browser is away, or comes back
		for _, data := range again {
			site.call(t, "POST", "/publish/news?id=event-"+data, "text/plain", data, nil)
		}
	}
	page.await(fmt.Sprintf("log.filter(e => e.type === 'onmessage').length >= %d", len(want)))
	publish(1)
	page.await(fmt.Sprintf("log.some(e => e.data === '%d')", len(want)-1))
	var got []string
	for _, e := range page.log() {
		switch e.Type {
		case "onmessage":
			got = append(got, e.Data)
		case "hub:open":
			if strings.Contains(e.Data, "reset") {
				t.Errorf("the page was told %s", e.Data)
			}
		}
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the page got %v\nwant %v", got, want)
	}
}

// TestReloadRetention holds that a reload applies changed bounds to the open
// file, and that a record and its streams live on when they are changed.
func TestReloadRetention(t *testing.T) {
	option, _ := bolt(t, "max_age 24h")
	const route = "sse /events {\n allow *\n }"
	l := loadLab(t, option, route)
	for i := range 50 {
		l.publish("news", fmt.Sprint(i))
	}
	first := sse.Position{Epoch: l.numbers("").Position.Epoch, Seq: 1}
	live, _ := l.open("?channel=news")
	resume := func() openData {
		s, o := l.open("?channel=news&since=" + first.String())
		s.Close()
		return o
	}
	if o := resume(); o.Resume != "complete" {
		t.Errorf("before: %+v", o)
	}
	l.load(strings.Replace(option, "1000000", "20", 1), route)
	eventually(t, "the oldest events are given up", func() bool { return resume().Resume == "reset" })
	l.publish("news", "goes on")
	expectData(t, live, "goes on")
}

// TestBrokerChanged holds that a hub which is given another file goes on in
// that one, and finds its record again when it is given the former.
func TestBrokerChanged(t *testing.T) {
	one, _ := bolt(t, "")
	two, _ := bolt(t, "")
	const route = "sse /events {\n allow *\n }"
	l := loadLab(t, one, route)
	kept := l.publish("news", "one")
	l.load(two, route)
	l.publish("news", "two")
	l.load(one, route)
	s, o := l.open("?channel=news&since=earliest")
	expectData(t, s, "one")
	if id := s.LastEventID(); id != kept.ID.String() || o.Resume != "complete" {
		t.Errorf("got %s and %+v, want %s", id, o, kept.ID)
	}
}

// TestRecordRefused holds that a record which cannot be opened keeps a
// configuration from loading, with the file and what to do, and leaves the one
// that runs alone.
func TestRecordRefused(t *testing.T) {
	const route = "sse /events {\n allow *\n }"
	option, path := bolt(t, "")
	l := loadLab(t, option, route)
	l.publish("news", "kept")

	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "text": strings.Repeat("no record\n", 2000)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "short"), whole[:3*os.Getpagesize()], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"empty": "empty", "text": "not a record", "short": "damaged"} {
		broken := filepath.Join(dir, name)
		err := l.tryLoad(strings.Replace(option, path, broken, 1), route)
		expectErrorParts(t, err, []string{broken, want, "hub default"})
	}
	err = l.tryLoad(option+"\n"+strings.Replace(option, "sse {", "sse other {", 1), route)
	expectErrorParts(t, err, []string{path, "locked", "another hub"})

	l.publish("news", "too")
	s, _ := l.open("?channel=news&since=earliest")
	expectData(t, s, "kept", "too")
}

// TestValidate holds that `caddy validate` neither creates a record nor fails
// because the Caddy that runs has it open.
func TestValidate(t *testing.T) {
	option, path := bolt(t, "")
	l := newLab(t)
	const route = "sse /events {\n allow *\n }"
	validate := func() {
		t.Helper()
		config, err := caddytest.Adapt(l.caddyfile(option, route))
		if err != nil {
			t.Fatal(err)
		}
		var parsed caddy.Config
		if err := json.Unmarshal(config, &parsed); err != nil {
			t.Fatal(err)
		}
		if err := caddy.Validate(&parsed); err != nil {
			t.Errorf("validate: %v", err)
		}
	}
	validate()
	if _, err := os.Stat(filepath.Dir(path)); !os.IsNotExist(err) {
		t.Errorf("validating created the record's directory: %v", err)
	}
	l.load(option, route)
	l.publish("news", "kept")
	validate()
	s, _ := l.open("?channel=news&since=earliest")
	expectData(t, s, "kept")
}
