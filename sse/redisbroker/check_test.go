package redisbroker_test

import (
	"crypto/tls"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// TestCheck holds that options are refused without asking Redis, and Record names what
// they would open, without the password.
func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name    string
		options redisbroker.Options
		refused string // a part of why
		record  string
	}{
		{name: "a host", options: redisbroker.Options{URL: "redis://h"}, record: "h:6379/0 sse:default"},
		{name: "a user", options: redisbroker.Options{URL: "rediss://u:geheim@h:1/2", Prefix: "p", Hub: "x"}, record: "h:1/2 p:x"},
		{name: "a socket", options: redisbroker.Options{URL: "unix://:geheim@/run/r.sock?db=3"}, record: "/run/r.sock/3 sse:default"},
		{name: "Sentinels", options: redisbroker.Options{URL: "redis://a:1?addr=b:2&master_set=m", SentinelPassword: "geheim"}, record: "a:1,b:2/0 master m sse:default"},
		{name: "nothing", refused: "missing"},
		{name: "another scheme", options: redisbroker.Options{URL: "http://h"}, refused: "must begin with"},
		{name: "a relative socket", options: redisbroker.Options{URL: "unix://run/r.sock"}, refused: "whole path"},
		{name: "a name of a database", options: redisbroker.Options{URL: "redis://h/x"}, refused: "number of a database"},
		{name: "an unknown parameter", options: redisbroker.Options{URL: "redis://h?master=m"}, refused: "master_set"},
		{name: "braces", options: redisbroker.Options{URL: "redis://h", Prefix: "{x}"}, refused: "braces"},
		{name: "certificates without TLS", options: redisbroker.Options{URL: "redis://h", TLS: new(tls.Config)}, refused: "rediss://"},
		{name: "a user of no Sentinel", options: redisbroker.Options{URL: "redis://h", SentinelUsername: "u"}, refused: "master_set"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.options.Check()
			switch {
			case c.refused == "" && err != nil:
				t.Error(err)
			case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)):
				t.Errorf("got %v, want %q", err, c.refused)
			case c.refused == "" && c.options.Record() != c.record:
				t.Errorf("the record is %q, want %q", c.options.Record(), c.record)
			}
		})
	}
}

// FuzzCheck promises that no error tells a part of a password, whatever is in it and
// whether or not it was escaped.
func FuzzCheck(f *testing.F) {
	for _, seed := range []string{"geheim", "ge/heim", "ge@heim", "1/geheim", "12?geheim", "%geheim", "ge#heim", "1/2/geheim", "[geheim", "ge heim"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, password string) {
		if strings.Count(password, "geheim") != 1 {
			password += "geheim"
		}
		for _, text := range []string{"redis://:" + password + "@h", "redis://u:" + url.QueryEscape(password) + "@h/x", "unix://" + password + "@/s", password} {
			o := redisbroker.Options{URL: text}
			if err := o.Check(); err != nil && strings.Contains(err.Error(), "geheim") {
				t.Errorf("%q: %s", text, err)
			}
		}
	})
}

// TestPasswordChanged holds that an open broker takes on another password, which Redis
// has by then or has later, and that nobody who follows the record notices.
func TestPasswordChanged(t *testing.T) {
	s := redistest.StartTCP(t)
	of := func(password string) redisbroker.Options {
		return redisbroker.Options{URL: "redis://:" + password + "@" + s.Address(), Timeout: 2 * time.Second}
	}
	s.Do("CONFIG", "SET", "requirepass", "first")
	s.Password = "first"
	n := start(t, s, of("first"))
	n.works()

	s.Do("ACL", "SETUSER", "default", ">second")
	before := connections(s)
	n.SetOptions(of("second"))
	n.works() // all the time
	n.wait("all connections are new", func() bool {
		return !slices.ContainsFunc(connections(s), func(id string) bool { return slices.Contains(before, id) })
	})
	n.works()

	n.SetOptions(of("third")) // which Redis does not have yet
	n.works()
	s.Do("ACL", "SETUSER", "default", ">third", "<first", "<second")
	s.Password = "third"
	s.Do("CLIENT", "KILL", "TYPE", "NORMAL", "SKIPME", "yes")
	n.wait("it is logged in with the last one", func() bool { return n.Health() == nil })
	n.works()
}

// connections returns the ids of those of brokers.
func connections(s *redistest.Server) (ids []string) {
	for line := range strings.Lines(s.Do("CLIENT", "LIST")) {
		if id, rest, _ := strings.Cut(line, " "); strings.Contains(rest, "name=caddy-sse ") {
			ids = append(ids, id)
		}
	}
	return ids
}
