package caddymodule_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// metrics returns the values by their series.
func (l *lab) metrics() map[string]float64 {
	l.t.Helper()
	values := make(map[string]float64)
	for line := range strings.Lines(l.do("GET", l.admin+"/metrics", "").body) {
		series, value, found := strings.Cut(strings.TrimSpace(line), "} ")
		if !found || !strings.HasPrefix(line, "caddy_sse_") {
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			l.t.Fatal(err)
		}
		values[strings.TrimPrefix(series, "caddy_sse_")+"}"] = v
	}
	return values
}

func (l *lab) expectMetrics(want map[string]float64) {
	l.t.Helper()
	got := l.metrics()
	for series, value := range want {
		if v, ok := got[series]; !ok || v != value {
			l.t.Errorf("%s: got %v (there: %v), want %v", series, v, ok, value)
		}
	}
}

// TestMetrics promises the metrics' values after known traffic, of each hub,
// and that no counter begins anew with a reload.
func TestMetrics(t *testing.T) {
	const globals = "sse stocks\n\tmetrics"
	l := loadLab(t, globals, anyChannel)
	s, _ := l.open("?channel=a&channel=b")
	l.open("?channel=a", "Last-Event-ID: garbage")
	gone, _ := l.open("?channel=p-*")
	l.publish("a", "1")
	l.publish("b", "2")
	l.publish("p-1", "3")
	l.publish("unheard", "4")
	expectData(t, s, "1", "2")
	expectData(t, gone, "3")
	gone.Close()
	l.do("POST", l.admin+"/sse/publish/a?hub=stocks", "x").into(t, new(receipt))
	eventually(t, "the stream is gone", func() bool { return l.numbers("").Streams == 2 })
	eventually(t, "all are delivered", func() bool { return l.numbers("").Delivered == 4 })
	want := map[string]float64{
		`streams_open{hub="default"}`:                          2,
		`streams_open{hub="stocks"}`:                           0,
		`channels{hub="default"}`:                              4,
		`channels{hub="stocks"}`:                               1,
		`events_published_total{hub="default"}`:                4,
		`events_published_total{hub="stocks"}`:                 1,
		`events_delivered_total{hub="default"}`:                4,
		`streams_closed_total{hub="default",reason="client"}`:  1,
		`streams_closed_total{hub="default",reason="drain"}`:   0,
		`streams_closed_total{hub="default",reason="expired"}`: 0,
		`streams_closed_total{hub="default",reason="busy"}`:    0,
		`resets_total{hub="default",reason="unknown"}`:         1,
		`resets_total{hub="default",reason="expired"}`:         0,
		`resets_total{hub="default",reason="epoch"}`:           0,
		`resets_total{hub="default",reason="limit"}`:           0,
	}
	l.expectMetrics(want)
	if kept := l.metrics()[`kept_bytes{hub="default"}`]; kept <= 0 {
		t.Errorf("kept_bytes: got %v", kept)
	}

	l.load(globals+"\n\torder sse first", anyChannel)
	l.expectMetrics(want)
	l.publish("a", "5")
	expectData(t, s, "5")
	want[`events_published_total{hub="default"}`] = 5
	eventually(t, "all are delivered", func() bool { return l.numbers("").Delivered == 6 })
	want[`events_delivered_total{hub="default"}`] = 6
	l.expectMetrics(want)
}

// TestMetricsFailedReload promises that the metrics are there after a reload
// that failed. Caddy goes on with the admin endpoint, and so with the metrics
// registry, of the configuration that it refused.
func TestMetricsFailedReload(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	l.open("?channel=a")
	l.publish("a", "1")
	want := map[string]float64{`streams_open{hub="default"}`: 1, `events_published_total{hub="default"}`: 1}
	l.expectMetrics(want)
	for _, directives := range []string{
		"sse /events* {\n\t\thub nosuch\n\t\tallow *\n\t}",
		"reverse_proxy {\n\t\tto localhost:1\n\t\ttransport http {\n\t\t\ttls_trust_pool file /nosuch\n\t\t}\n\t}",
	} {
		if err := l.tryLoad("", directives); err == nil {
			t.Error("the bad configuration is accepted")
		}
		l.expectMetrics(want)
	}
}

// TestMetricsLint promises names and help that Prometheus' own linter accepts.
func TestMetricsLint(t *testing.T) {
	l := loadLab(t, "", anyChannel)
	l.open("?channel=a")
	l.publish("a", "x")
	var ours bytes.Buffer
	for line := range strings.Lines(l.do("GET", l.admin+"/metrics", "").body) {
		if strings.Contains(line, "caddy_sse_") {
			ours.WriteString(line)
		}
	}
	if n := strings.Count(ours.String(), "# HELP"); n < 7 {
		t.Errorf("found %d metrics in %s", n, &ours)
	}
	problems, err := promlint.New(&ours).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

type accessLine struct {
	Status  int `json:"status"`
	Request struct {
		URI string `json:"uri"`
	} `json:"request"`
	SSE *struct {
		Hub        string   `json:"hub"`
		Connection string   `json:"connection"`
		Channels   []string `json:"channels"`
		Resume     string   `json:"resume"`
		Reason     string   `json:"reason"`
		Events     int      `json:"events"`
		Error      string   `json:"error"`
	} `json:"sse"`
}

// TestAccessLog promises what the access log tells of a stream that has ended,
// and that it tells no token.
func TestAccessLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	l := loadLab(t, "", `log {
		output file `+path+`
		format json
	}
	sse /events* {
		channel all
		allow *
	}
	sse /short {
		channel all
		max_age 50ms
	}
	sse_api /sse* {
		token s3cret-t0ken
	}`)
	l.do("POST", l.site+"/sse/publish/a", "x", "Authorization: Bearer s3cret-t0ken").into(t, new(receipt))
	l.do("POST", l.site+"/sse/publish/a", "x", "Authorization: Bearer wr0ng").problem(t, 401)
	l.do("GET", l.site+"/events?channel=a+b", "").problem(t, 400)
	const connection = "0a9f0a9f-0a9f-0a9f-0a9f-0a9f0a9f0a9f"
	s, _ := l.open("?channel=a&since=earliest&connection=" + connection)
	l.publish("a", "y")
	expectData(t, s, "x", "y")
	s.Close()
	short, open := l.openAt("/short")
	expectClosed(t, short, "expired")

	var text string
	eventually(t, "five lines are logged", func() bool {
		content, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		text = string(content)
		return strings.Count(text, "\n") == 5
	})
	for _, secret := range []string{"s3cret", "wr0ng"} {
		if strings.Contains(text, secret) {
			t.Errorf("the access log has %q in it: %s", secret, text)
		}
	}
	streams := 0
	for line := range strings.Lines(text) {
		var a accessLine
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			t.Fatalf("%s: %s", err, line)
		}
		if a.SSE == nil {
			if a.Status == 200 && !strings.HasPrefix(a.Request.URI, "/sse/") {
				t.Errorf("there is no sse in %s", line)
			}
			continue
		}
		streams++
		got := fmt.Sprintf("%d %s %s %q %s %s %d %q", a.Status, a.SSE.Hub, a.SSE.Connection, a.SSE.Channels, a.SSE.Resume, a.SSE.Reason, a.SSE.Events, a.SSE.Error)
		want := fmt.Sprintf(`200 default %s ["all" "a"] complete client 2 ""`, connection)
		if a.Request.URI == "/short" {
			want = fmt.Sprintf(`200 default %s ["all"] fresh expired 0 ""`, open.Connection)
		}
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if streams != 2 {
		t.Errorf("%d lines have an sse object, want 2", streams)
	}
}

// TestLogLevels promises that a client cannot fill the log of a server that is
// not being debugged.
func TestLogLevels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "caddy.log")
	l := newLab(t)
	l.load("log ours {\n\t\toutput file "+path+"\n\t\tlevel INFO\n\t\tinclude sse http.handlers.sse http.handlers.sse_api\n\t}",
		"sse /events* {\n\t\tallow user-{header.X-User}\n\t\tlimits {\n\t\t\tconnections 1\n\t\t}\n\t}\n\tsse_api /sse* {\n\t\ttoken s3cret\n\t}")
	for range 3 {
		l.do("GET", l.site+"/events?channel=user-b", "", "X-User: *").problem(t, 403)
		l.do("GET", l.site+"/events?channel=user-b", "", "X-User: a").problem(t, 403)
		l.do("POST", l.site+"/sse/publish/a", "x").problem(t, 401)
	}
	l.open("?channel=user-a", "X-User: a")
	l.openAt("/events?channel=user-a", "X-User: a")
	content, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if lines := slices.Collect(strings.Lines(string(content))); len(lines) > 0 {
		t.Errorf("got %d lines, such as %s", len(lines), lines[0])
	}
}
