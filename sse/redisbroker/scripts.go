package redisbroker

import (
	_ "embed" // the scripts
	"errors"
	"strconv"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

//go:embed lua/record.lua
var recordSource string

//go:embed lua/publish.lua
var publishSource string

//go:embed lua/look.lua
var lookSource string

//go:embed lua/page.lua
var pageSource string

//go:embed lua/ask.lua
var askSource string

//go:embed lua/beat.lua
var beatSource string

var (
	publishScript = rueidis.NewLuaScript(recordSource + publishSource)
	lookScript    = rueidis.NewLuaScript(recordSource + lookSource)
	pageScript    = rueidis.NewLuaScript(pageSource)
	askScript     = rueidis.NewLuaScript(recordSource + askSource)
	beatScript    = rueidis.NewLuaScript(beatSource)
)

// What the look script is asked for besides.
const (
	lookOnly  = ""
	lookEnded = "ended"
	lookProbe = "probe"
)

// Names in the stream: the fields of an entry.
const (
	fieldTime     = "t" // Unix, in microseconds
	fieldChannels = "c" // separated by commas, which no name has
	fieldName     = "n"
	fieldData     = "d"
	fieldRetry    = "r" // in milliseconds
	fieldEnd      = "x"
)

// Names in the stream of the questions.
const (
	fieldAsk  = "q"
	fieldID   = "i"
	fieldFrom = "f"
)

var errReply = errors.New("redis answered with something that this version of caddy-sse does not know")

// settings returns the arguments with which each script begins that looks after
// the record. The proposed epoch is new each time: two lives of the record must
// not get the same name.
func (b *Broker) settings(room int) []string {
	o := b.options.Load()
	restart := "anew"
	if o.AfterRestart == GoOn {
		restart = "go on"
	}
	args := make([]string, 0, 5+room)
	return append(args, sse.NewEpoch(), restart, strconv.Itoa(o.MaxEvents),
		strconv.FormatInt(max(o.MaxAge.Microseconds(), 1), 10), strconv.FormatInt(o.MaxBytes, 10))
}

// publishArgs returns what the publish script is told. The deadline is by the server's
// clock.
func (b *Broker) publishArgs(deadline int64, events []sse.Event) []string {
	t := &b.tuning
	args := append(b.settings(4+6*len(events)), strconv.FormatInt(t.window.Microseconds(), 10), strconv.Itoa(t.repeats), strconv.Itoa(t.ended),
		strconv.FormatInt(deadline, 10))
	for i := range events {
		e := &events[i]
		key := ""
		if e.ID != "" {
			k := sse.KeyOf(e.ID)
			key = string(k[:])
		}
		args = append(args, key, joinChannels(e.Channels), strconv.Itoa(int(e.End)), e.Name, e.Data,
			strconv.FormatInt(e.Retry.Milliseconds(), 10))
	}
	return args
}

// A look is what the record is at one moment.
type look struct {
	epoch        string
	life         string
	head, oldest uint64
	now          int64 // by the server's clock, Unix in microseconds
	ended        []sse.Ended
	asks         uint64 // number of the newest question
}

func (l *look) at(seq uint64) sse.Position { return sse.Position{Epoch: l.epoch, Seq: seq} }

func parseLook(r rueidis.RedisResult) (l look, err error) {
	reply, err := r.ToArray()
	if err != nil {
		return l, err
	}
	if len(reply) != 7 {
		return l, errReply
	}
	var errs [7]error
	l.epoch, errs[0] = reply[0].ToString()
	l.life, errs[1] = reply[1].ToString()
	l.head, errs[2] = reply[2].AsUint64()
	l.oldest, errs[3] = reply[3].AsUint64()
	l.now, errs[4] = reply[4].AsInt64()
	l.ended, errs[5] = parseEnded(&reply[5])
	l.asks, errs[6] = reply[6].AsUint64()
	return l, errors.Join(errs[:]...)
}

func parseEnded(m *rueidis.RedisMessage) ([]sse.Ended, error) {
	list, err := m.AsStrSlice()
	if err != nil {
		return nil, err
	}
	ended := make([]sse.Ended, 0, len(list)/2)
	for i := 0; i+1 < len(list); i += 2 {
		seq, err := strconv.ParseUint(list[i+1], 10, 64)
		if err != nil {
			return nil, errReply
		}
		ended = append(ended, sse.Ended{Channel: list[i], Seq: seq})
	}
	return ended, nil
}

// A span is a part of the record that makes a page.
type span struct {
	epoch, life    string
	head, oldest   uint64
	after, through uint64
	gone           bool // the position is, and there is no span
}

func parseSpan(r rueidis.RedisResult) (s span, err error) {
	reply, err := r.ToArray()
	if err != nil {
		return s, err
	}
	if len(reply) != 3 && len(reply) != 6 {
		return s, errReply
	}
	var errs [6]error
	s.epoch, errs[0] = reply[0].ToString()
	s.head, errs[1] = reply[1].AsUint64()
	s.oldest, errs[2] = reply[2].AsUint64()
	if s.gone = len(reply) == 3; !s.gone {
		s.life, errs[3] = reply[3].ToString()
		s.after, errs[4] = reply[4].AsUint64()
		s.through, errs[5] = reply[5].AsUint64()
	}
	return s, errors.Join(errs[:]...)
}
