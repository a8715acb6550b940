package redisbroker

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Options are a broker's settings. URL is all that must be set.
//
// The record gives up its oldest events when there are more, or older or larger
// ones, than the bounds say. Each may be exceeded by a sixteenth. Nodes that have
// different bounds on one record make it as small as the smallest.
type Options struct {
	// URL tells where Redis is, and which user this is:
	//
	//	redis://user:password@host:6379/0
	//	rediss://host          with TLS
	//	unix:///run/redis.sock
	//	redis://sentinel:26379?master_set=mymaster&addr=sentinel2:26379
	//	redis://node1:6379?addr=node2:6379      a Cluster
	//
	// What is special in a URL must be escaped in a password, as in p%40ss.
	URL string
	// TLS are settings beyond those that follow from the URL, such as
	// certificates. Nil leaves them as they are. They are used for Sentinels as well.
	TLS *tls.Config
	// SentinelUsername and SentinelPassword are for the Sentinels, if they ask for one.
	SentinelUsername, SentinelPassword string

	// Prefix and Hub name the record: its keys begin with {prefix:hub}, so
	// that they share a slot of a Cluster. Neither may contain braces. Empty
	// is "sse" and "default".
	Prefix, Hub string

	// MaxEvents is how many events are kept, of all channels together. Zero
	// or less is 100,000.
	MaxEvents int
	// MaxAge is for how long events are kept. Zero or less is 24 hours.
	MaxAge time.Duration
	// MaxBytes bounds the bytes of the kept events' data, names and
	// channels, and 64 more for each. Redis takes some tenths more. Zero or
	// less is 256 MiB.
	MaxBytes int64

	// AfterRestart tells what becomes of the record when Redis was
	// restarted, or another server took over.
	AfterRestart AfterRestart
	// Timeout is for how long Redis may be silent before it counts as away.
	// Zero or less is 3 seconds.
	Timeout time.Duration
	// Logger is told what an operator should know. Nil is silent.
	Logger *slog.Logger
}

// AfterRestart tells what becomes of a record when Redis was restarted, or
// another server took over.
type AfterRestart int

const (
	// BeginAnew is the zero value: the record gets a new epoch, and every
	// subscriber is told so by a reset. Most Redises lose what came last
	// when they crash or fail over, and their numbers would be given to other
	// events; nobody who comes back could tell.
	BeginAnew AfterRestart = iota
	// GoOn keeps the record as Redis has it. It is for a Redis that loses
	// nothing that it answered: with `appendonly yes`, `appendfsync always`, and
	// no replica that may take over. A node that has seen more than what is
	// there makes it begin anew all the same.
	GoOn
)

// Defaults of [Options].
const (
	DefaultPrefix    = "sse"
	DefaultHub       = "default"
	DefaultMaxEvents = 100_000
	DefaultMaxAge    = 24 * time.Hour
	DefaultMaxBytes  = 256 << 20
	DefaultTimeout   = 3 * time.Second
)

func (o Options) withDefaults() Options {
	o.Prefix = cmp.Or(o.Prefix, DefaultPrefix)
	o.Hub = cmp.Or(o.Hub, DefaultHub)
	o.MaxEvents = cmp.Or(max(o.MaxEvents, 0), DefaultMaxEvents)
	o.MaxAge = cmp.Or(max(o.MaxAge, 0), DefaultMaxAge)
	o.MaxBytes = cmp.Or(max(o.MaxBytes, 0), DefaultMaxBytes)
	o.Timeout = cmp.Or(max(o.Timeout, 0), DefaultTimeout)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// keys are the names of what the record has in Redis.
type keys struct {
	meta, record, ids, older, ended string
	nodes, asks                     string
	answers, marks                  string // begin those of a question, and of a session
}

func (o *Options) keys() (keys, error) {
	if strings.ContainsAny(o.Prefix+o.Hub, "{}") {
		return keys{}, fmt.Errorf("the names of a record in Redis must not contain braces: prefix %q, hub %q", o.Prefix, o.Hub)
	}
	tag := "{" + o.Prefix + ":" + o.Hub + "}:"
	return keys{tag + "meta", tag + "record", tag + "ids", tag + "ids:older", tag + "ended", tag + "nodes", tag + "asks", tag + "answers:", tag + "marks:"}, nil
}

func (k *keys) all() []string { return []string{k.meta, k.record, k.ids, k.older, k.ended} }
