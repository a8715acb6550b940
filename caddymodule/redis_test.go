package caddymodule_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// redis is the global option for hubs whose records are in Redis.
func redis(url, settings string) string {
	return fmt.Sprintf("sse {\n broker redis %s {\n max_events 1000\n %s\n }\n }", url, settings)
}

// expectNoSecret checks that what somebody may read does not hold what he may not.
func expectNoSecret(t *testing.T, text, secret string) {
	t.Helper()
	if strings.Contains(text, secret) {
		t.Errorf("%q is in %q", secret, text)
	}
}

// TestRedisAway holds that a Redis that is away when Caddy starts keeps nothing else
// from being served; that publishers, operators and subscribers are told, each what is
// for them; and that everything works as soon as Redis is there.
func TestRedisAway(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "geheim")
	server.Password = "geheim"
	server.Stop()
	const directives = `respond / "served"
	sse /events {
		allow *
	}
	sse /strict {
		allow *
		overload 503
	}
	sse_api /sse* {
		token secret
	}`
	l := loadLab(t, redis(server.URL(), "")+"\nmetrics", directives)
	if r := l.do("GET", l.site+"/", ""); r.body != "served" {
		t.Errorf("the rest of the site answers %d %q", r.StatusCode, r.body)
	}
	for _, r := range []reply{
		l.do("POST", l.admin+"/sse/publish/news", "lost"),
		l.do("GET", l.admin+"/sse/health", ""),
		l.do("GET", l.admin+"/sse", ""),
		l.do("POST", l.site+"/sse/publish/news", "lost", "Authorization: Bearer secret"),
		l.do("GET", l.site+"/sse/health", "", "Authorization: Bearer secret"),
	} {
		r.problem(t, 503, "hub default", server.Socket)
		expectNoSecret(t, r.body, "geheim")
		if r.Header.Get("Retry-After") == "" {
			t.Error("it is not told when to try again")
		}
	}
	l.do("GET", l.site+"/sse/health", "").problem(t, 401)
	for _, r := range []reply{
		l.do("GET", l.site+"/strict?channel=news", ""),
		l.do("POST", l.site+"/strict?connection=6e9c0f1e-7a5b-4d3e-9b1a-0123456789ab", `{"subscribe":["news"]}`, "Content-Type: application/json"),
	} {
		r.problem(t, 503)
		expectNoSecret(t, r.body, server.Socket) // which is no client's business
	}
	expectClosed(t, ssetest.Open(t, l.client, l.site+"/events?channel=news", nil), "busy")
	l.expectMetrics(map[string]float64{`healthy{hub="default"}`: 0})

	server.Restart()
	l.healthy()
	s, _ := l.open("?channel=news")
	l.publish("news", "comes")
	expectData(t, s, "comes")
	l.expectMetrics(map[string]float64{`healthy{hub="default"}`: 1})
}

// TestRedisSilent holds that Caddy starts, and can be stopped, though Redis takes
// connections and answers nothing.
func TestRedisSilent(t *testing.T) {
	server := redistest.Start(t)
	server.Suspend()
	l := loadLab(t, redis(server.URL(), "timeout 500ms"), anyChannel)
	l.do("POST", l.admin+"/sse/publish/news", "lost").problem(t, 503, "hub default", "does not answer within 500ms")
	l.load("", anyChannel) // the hub that waits is no more
	l.publish("news", "in memory")
	l.load(redis(server.URL(), "timeout 500ms"), anyChannel)
	server.Resume()
	l.healthy()
	l.publish("news", "in Redis")
}

// TestRedisGoesAway holds what works while Redis is away that was there: streams, also
// new ones, which resume from memory. What needs Redis is refused, and clients are not
// told where it is.
func TestRedisGoesAway(t *testing.T) {
	server := redistest.Start(t)
	option := strings.Replace(redis(server.URL(), ""), "broker", "history 2 1h\n broker", 1)
	l := loadLab(t, option, "sse /events {\n allow *\n keepalive 50ms\n }\n sse /strict {\n allow *\n overload 503\n }")
	l.publish("news", "zero")
	s, o := l.open("?channel=news&connection=6e9c0f1e-7a5b-4d3e-9b1a-0123456789ab")
	l.publish("news", "one")
	l.publish("news", "two")
	expectData(t, s, "one")
	first := s.LastEventID()
	expectData(t, s, "two")

	server.Kill()
	eventually(t, "it is noticed", func() bool { return l.do("GET", l.admin+"/sse/health", "").StatusCode == 503 })
	l.do("POST", l.admin+"/sse/publish/news", "lost").problem(t, 503, "nothing was published")
	again, how := l.open("?channel=news", "Last-Event-ID: "+first)
	expectData(t, again, "two")
	if how.Resume != "complete" {
		t.Errorf("got %+v", how)
	}
	older := "Last-Event-ID: " + strings.TrimSuffix(first, "2") + "0" // whose events are only in Redis
	expectClosed(t, ssetest.Open(t, l.client, l.site+"/events?channel=news", l.request("GET", l.site, nil, older).Header), "busy")
	refused := l.do("GET", l.site+"/strict?channel=news", "", older)
	refused.problem(t, 503)
	expectNoSecret(t, refused.body, server.Socket)
	change := l.do("POST", l.site+"/events?connection="+o.Connection, `{"subscribe":["other"]}`, "Content-Type: application/json")
	change.problem(t, 503, "changed or not")
	expectNoSecret(t, change.body, server.Socket)
	// What is asked of all nodes is asked by Redis.
	l.do("DELETE", l.admin+"/sse/connections/"+o.Connection, "").problem(t, 503)
	l.do("GET", l.admin+"/sse/connections?channel=news", "").problem(t, 503)

	server.Restart()
	l.healthy()
	expectClosed(t, again, "drain")
	reset, how := l.open("?channel=news", "Last-Event-ID: "+again.LastEventID())
	if how.Resume != "reset" || len(how.Reset) != 1 || how.Reset[0].Reason != "epoch" {
		t.Errorf("got %+v", how)
	}
	l.publish("news", "of another record")
	expectData(t, reset, "of another record")
}

// healthy waits until the hub is.
func (l *lab) healthy() {
	l.t.Helper()
	eventually(l.t, "the hub is healthy", func() bool { return l.do("GET", l.admin+"/sse/health", "").StatusCode == 200 })
}

// TestRedisPassword holds that a reload with another password applies it: to a hub that
// could not be opened for the wrong one, and to one that is open, whose streams and
// record stay. No password is in what Caddy answers.
func TestRedisPassword(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "first")
	server.Password = "first"
	of := func(password string) string { return redis("unix://:"+password+"@"+server.Socket, "") }
	l := loadLab(t, of("wrong-7"), anyChannel)
	answer := l.do("GET", l.admin+"/sse/health", "")
	answer.problem(t, 503, "WRONGPASS")
	expectNoSecret(t, answer.body, "wrong-7")

	l.load(of("first"), anyChannel)
	l.healthy()
	s, _ := l.open("?channel=news")
	l.publish("news", "one")
	expectData(t, s, "one")

	server.Do("ACL", "SETUSER", "default", ">second", "<first")
	server.Password = "second"
	l.load(of("second"), anyChannel)
	server.Do("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
	eventually(t, "it publishes again", func() bool { return l.do("POST", l.admin+"/sse/publish/news", "two").StatusCode == 200 })
	expectData(t, s, "two")
}

// TestRedisFailedReload holds that a hub which waits for Redis is opened with the settings
// of the configuration in force, and not with those of one that failed.
func TestRedisFailedReload(t *testing.T) {
	server := redistest.Start(t, "--requirepass", "right")
	server.Password = "right"
	server.Stop()
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	l := loadLab(t, redis("unix://:right@"+server.Socket, ""), anyChannel)
	for range 5 { // apps start in no certain order
		err := l.tryLoad(redis("unix://:wrong@"+server.Socket, ""), anyChannel+"\n}\nhttp://"+busy.Addr().String()+" {\n bind 127.0.0.1\n respond hello")
		expectErrorParts(t, err, []string{"address already in use"})
	}
	server.Restart()
	l.healthy()
}

// TestRedisTLS holds that the certificates of the configuration are used, and that a
// reload with a URL from another state of its file is applied as one with another URL is.
func TestRedisTLS(t *testing.T) {
	certificate, key := redistest.SelfSigned(t)
	server := redistest.StartTCP(t, "--port", "0", "--tls-port", "{port}", "--tls-cert-file", certificate, "--tls-key-file", key,
		"--tls-ca-cert-file", certificate, "--tls-auth-clients", "yes", "--requirepass", "first")
	server.Password = "first"
	file := filepath.Join(t.TempDir(), "url")
	url := func(password string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("rediss://:"+password+"@"+server.Address()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	url("wrong")
	trusts := "tls {\n ca " + certificate + "\n %s\n }"
	l := loadLab(t, redis("{file."+file+"}", fmt.Sprintf(trusts, "")), anyChannel)
	l.do("GET", l.admin+"/sse/health", "").problem(t, 503) // Redis asks for a certificate

	both := redis("{file."+file+"}", fmt.Sprintf(trusts, "certificate "+certificate+" "+key))
	l.load(both, anyChannel)
	l.do("GET", l.admin+"/sse/health", "").problem(t, 503, "WRONGPASS")
	url("first")
	l.load(both, anyChannel)
	l.healthy()
	s, _ := l.open("?channel=news")
	l.publish("news", "under TLS")
	expectData(t, s, "under TLS")
}

// TestRedisRefused holds that what is wrong with the configuration, whatever Redis says,
// keeps it from being loaded, and that the error does not quote the password.
func TestRedisRefused(t *testing.T) {
	l := newLab(t)
	for _, url := range []string{"redis://:gehe/im@h", "redis://:1/geheim@h", "http://:geheim@h", `"redis://:%geheim@h"`, "redis://:x geheim@h", "redis://:geheim@h?x=geheim"} {
		err := l.tryLoad(redis(url, ""), anyChannel)
		expectErrorParts(t, err, []string{"Caddyfile:"})
		if err != nil {
			expectNoSecret(t, err.Error(), "geheim")
			expectNoSecret(t, err.Error(), "gehe")
		}
	}
	t.Setenv("SSE_TEST_REDIS", "redis://:gehe/im@h")
	err := l.tryLoad(redis("{env.SSE_TEST_REDIS}", ""), anyChannel)
	expectErrorParts(t, err, []string{"hub default", "escaped"})
	expectNoSecret(t, err.Error(), "gehe")
}

// TestRedisHubs holds that each hub has a record of its own, and so has each prefix; and
// that a reload which gives a hub another prefix and then the former finds its record.
func TestRedisHubs(t *testing.T) {
	server := redistest.Start(t)
	other := strings.Replace(redis(server.URL(), ""), "sse {", "sse other {", 1)
	l := loadLab(t, redis(server.URL(), "")+"\n"+other, anyChannel)
	l.publish("news", "one")
	l.do("POST", l.admin+"/sse/publish/news?hub=other", "elsewhere").into(t, new(receipt))
	l.load(redis(server.URL(), "prefix site-2"), anyChannel)
	l.publish("news", "of another site")
	l.load(redis(server.URL(), "prefix sse"), anyChannel) // which is the default
	l.publish("news", "two")
	s, o := l.open("?channel=news&since=earliest")
	expectData(t, s, "one", "two")
	if o.Resume != "complete" {
		t.Errorf("got %+v", o)
	}
	for _, key := range []string{"{sse:default}:record", "{sse:other}:record", "{site-2:default}:record"} {
		if server.Do("EXISTS", key) != "1" {
			t.Errorf("there is no key %s", key)
		}
	}
}

// TestRedisRetention holds that a reload applies changed bounds to the open record, on
// which its streams live on.
func TestRedisRetention(t *testing.T) {
	server := redistest.Start(t)
	option := redis(server.URL(), "")
	l := loadLab(t, option, anyChannel)
	live, _ := l.open("?channel=news")
	for i := range 50 {
		l.publish("news", fmt.Sprint(i))
		expectData(t, live, fmt.Sprint(i))
	}
	l.load(strings.Replace(option, "1000", "20", 1), anyChannel)
	eventually(t, "the oldest events are given up", func() bool {
		kept, err := strconv.Atoi(server.Do("XLEN", "{sse:default}:record"))
		return err == nil && kept <= 22 // each bound may be exceeded a little
	})
	l.publish("news", "goes on")
	expectData(t, live, "goes on")
}

// TestRedisValidate holds that `caddy validate` does not connect.
func TestRedisValidate(t *testing.T) {
	socket := filepath.Join(shortDir(t), "redis.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			conn.Close()
			t.Error("somebody connects")
		}
	}()
	l := newLab(t)
	config, err := caddytest.Adapt(l.caddyfile(redis("unix://"+socket, ""), anyChannel))
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

// shortDir returns a directory for sockets, whose paths must be short.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sock-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // it is a temporary directory
	return dir
}
