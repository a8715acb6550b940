package redisbroker_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// works publishes and receives.
func (n *node) works() {
	n.t.Helper()
	data := fmt.Sprint("from ", n.state().Newest.Seq)
	n.publish(on("a", data))
	n.received(data)
	n.healthy()
}

// opensNot opens what must fail, and returns why.
func opensNot(t *testing.T, o redisbroker.Options) string {
	t.Helper()
	b, err := redisbroker.Open(o)
	if err == nil {
		b.Close()
		t.Fatal("it opens")
	}
	t.Log(err)
	return err.Error()
}

func TestPassword(t *testing.T) {
	s := redistest.StartTCP(t, "--requirepass", "geheim-7")
	s.Password = "geheim-7"
	start(t, s, redisbroker.Options{}).works()
	start(t, s, redisbroker.Options{URL: "redis://:geheim-7@" + s.Address()}).works()
	for _, url := range []string{"redis://" + s.Address(), "redis://:wrong-7@" + s.Address(), "redis://:wrong-7@" + s.Address() + "/x"} {
		if why := opensNot(t, redisbroker.Options{URL: url}); strings.Contains(why, "wrong-7") {
			t.Errorf("the error quotes the password: %s", why)
		}
	}
}

// least is what a user must be allowed, as the documentation says.
const least = "~{sse:* +evalsha +eval +info +time +hmget +hset +hincrby +hget +hlen +set +unlink +exists +rename " +
	"+xadd +xrange +xlen +xtrim +xread +zadd +zcard +zscore +zrange +zrangebyscore +zrem +zremrangebyrank +zremrangebyscore +rpush +blpop +expire +ping +hello"

func TestLeastUser(t *testing.T) {
	docs, err := os.ReadFile("../../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(docs), " resetchannels "+least+"\n") {
		t.Errorf("docs/config.md does not say %s", least)
	}
	s := redistest.StartTCP(t)
	s.Do(append([]string{"ACL", "SETUSER", "hub", "on", ">pass", "resetchannels"}, strings.Fields(least)...)...)
	n := start(t, s, redisbroker.Options{URL: "redis://hub:pass@" + s.Address(), MaxEvents: 3})
	n.works()
	n.answering("hub")
	if answers, err := n.Ask(t.Context(), []byte("who?")); err != nil || len(answers) != 1 {
		t.Errorf("Ask: %q, %v", answers, err)
	}
	if err := n.Mark(t.Context(), "c"); err != nil {
		t.Error(err)
	}
	if marked, err := n.Marked(t.Context(), "c"); err != nil || !marked {
		t.Errorf("Marked: %v, %v", marked, err)
	}
	end := on("over", "bye")
	end.End = 1
	n.publish(named("x", "1"), end, on("a", "2"))
	n.publish(on("a", "3"), on("a", "4"))
	n.received("4")
	n.keeps("2", "3", "4")
	s.Do("FLUSHALL")
	n.publish(on("a", "5"))
	n.endsGone()
	if why := opensNot(t, redisbroker.Options{URL: "redis://hub:pass@" + s.Address(), Prefix: "other"}); !strings.Contains(why, "access") {
		t.Errorf("a user opens what is not his: %s", why)
	}
}

func TestTLS(t *testing.T) {
	certificate, key, roots := selfSigned(t)
	s := redistest.StartTCP(t, "--port", "0", "--tls-port", "{port}", "--tls-cert-file", certificate, "--tls-key-file", key,
		"--tls-ca-cert-file", certificate, "--tls-auth-clients", "no")
	url := "rediss://" + s.Address()
	start(t, s, redisbroker.Options{URL: url, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}}).works()
	if why := opensNot(t, redisbroker.Options{URL: url}); !strings.Contains(why, "certificate") {
		t.Errorf("an unknown certificate: %s", why)
	}
	opensNot(t, redisbroker.Options{URL: "redis://" + s.Address(), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}})
}

func selfSigned(t *testing.T) (certificate, key string, roots *x509.CertPool) {
	t.Helper()
	certificate, key = redistest.SelfSigned(t)
	text, err := os.ReadFile(certificate)
	if err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return certificate, key, roots
}

func TestDatabaseNumber(t *testing.T) {
	s := redistest.StartTCP(t)
	start(t, s, redisbroker.Options{URL: "redis://" + s.Address() + "/3"}).works()
	if got := s.Do("-n", "3", "EXISTS", "{sse:default}:record"); got != "1" {
		t.Errorf("the record is not in database 3: %s", got)
	}
}

// The keys of a record share a slot, and scripts that were never seen are sent again.
func TestCluster(t *testing.T) {
	s := redistest.StartTCP(t, "--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1")
	add := []string{"CLUSTER", "ADDSLOTS"}
	for slot := range 16384 {
		add = append(add, strconv.Itoa(slot))
	}
	s.Do(add...)
	wait(t, "the Cluster is up", func() bool { return strings.Contains(s.Do("CLUSTER", "INFO"), "cluster_state:ok") })
	n := start(t, s, redisbroker.Options{URL: "redis://" + s.Address()})
	n.works()
	s.Do("SCRIPT", "FLUSH")
	n.works()
	n.publish(named("x", "1"), named("y", "2"))
	n.received("2")
	n.stays()
}

// A failover by Sentinels is followed, and noticed.
func TestSentinel(t *testing.T) {
	master := redistest.StartTCP(t)
	replica := redistest.StartTCP(t, "--replicaof", "127.0.0.1", portOf(master))
	replica.Await("replication", "master_link_status", "up")
	sentinel := redistest.StartSentinel(t, "mymaster", master)
	wait(t, "the Sentinel knows the replica", func() bool { return strings.Contains(sentinel.Do("SENTINEL", "MASTER", "mymaster"), "num-slaves\n1\n") })

	n := start(t, nil, redisbroker.Options{URL: "redis://" + sentinel.Address() + "?master_set=mymaster"})
	before := n.publish(on("a", "1"))[0]
	n.received("1")
	master.Do("WAIT", "1", "0")
	master.Kill()
	n.ill()
	after := n.publishes(on("a", "2"))[0]
	if after.Epoch == before.Epoch {
		t.Errorf("%s follows %s after a failover", after, before)
	}
	n.endsGone()
	n.healthy()
	if replica.Info("replication", "role") != "master" {
		t.Error("the replica did not take over; this test shows nothing")
	}
}

// An operator is told that Redis may evict the record.
func TestEvictionIsToldOf(t *testing.T) {
	for policy, told := range map[string]bool{"noeviction": false, "allkeys-lru": true, "volatile-ttl": true} {
		s := redistest.Start(t, "--maxmemory", "100mb", "--maxmemory-policy", policy)
		var log strings.Builder
		n := start(t, s, redisbroker.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		n.works()
		n.cancel()
		<-n.done
		n.Close()
		if got := strings.Contains(log.String(), "maxmemory-policy"); got != told {
			t.Errorf("%s: the log says %q", policy, log.String())
		}
	}
}

func TestOptionsThatCannotBe(t *testing.T) {
	for _, o := range []redisbroker.Options{
		{},
		{URL: "localhost:6379"},
		{URL: "http://localhost"},
		{URL: "redis://:geheim-7@local host"},
		{URL: "redis://:geheim-7@localhost/x"},
		{URL: "redis://localhost", Hub: "a}b"},
		{URL: "redis://:geheim-7@127.0.0.1:1"},
		{URL: "unix:///nowhere/redis.sock"},
	} {
		if why := opensNot(t, o); strings.Contains(why, "geheim") {
			t.Errorf("the error quotes the password: %s", why)
		}
	}
}
