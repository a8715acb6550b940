package redisbroker

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

const separator = "," // which no channel's name has

// errHole means that entries of the stream are missing.
var errHole = errors.New("entries are missing")

func joinChannels(names []string) string { return strings.Join(names, separator) }

// entryID returns the id of a stream's entry.
func entryID(life string, seq uint64) string { return life + "-" + strconv.FormatUint(seq, 10) }

// parseEntries reads what the stream holds of an epoch, which must follow each other
// without a hole. It also returns the life to which the entries belong.
func parseEntries(epoch string, raw []rueidis.XRangeSlice) (life string, entries []sse.Entry, err error) {
	entries = make([]sse.Entry, 0, len(raw))
	for i := range raw {
		of, e, err := parseEntry(epoch, &raw[i])
		if err != nil {
			return "", nil, err
		}
		if i > 0 && (of != life || e.Position.Seq != entries[i-1].Position.Seq+1) {
			if of != life {
				break // what follows is of the next epoch
			}
			return "", nil, fmt.Errorf("%w between %d and %s of the stream", errHole, entries[i-1].Position.Seq, raw[i].ID)
		}
		life = of
		entries = append(entries, e)
	}
	return life, entries, nil
}

func parseEntry(epoch string, raw *rueidis.XRangeSlice) (life string, e sse.Entry, err error) {
	life, digits, _ := strings.Cut(raw.ID, "-")
	seq, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return "", e, fmt.Errorf("the id %q of an entry of the stream cannot be read", raw.ID)
	}
	e.Position = sse.Position{Epoch: epoch, Seq: seq}
	var at, retry, end int64
	for _, f := range raw.FieldValues {
		switch f.Field {
		case fieldTime:
			at, err = strconv.ParseInt(f.Value, 10, 64)
		case fieldChannels:
			e.Event.Channels = strings.Split(f.Value, separator)
		case fieldName:
			e.Event.Name = f.Value
		case fieldData:
			e.Event.Data = f.Value
		case fieldRetry:
			retry, err = strconv.ParseInt(f.Value, 10, 64)
		case fieldEnd:
			end, err = strconv.ParseInt(f.Value, 10, 64)
		}
		if err != nil {
			break
		}
	}
	known := end >= 0 && end <= int64(sse.EndOnly) && retry >= 0 && retry <= sse.MaxRetry.Milliseconds()
	if err != nil || at == 0 || len(e.Event.Channels) == 0 || !known {
		return "", e, fmt.Errorf("entry %s of the stream was not written by this version of caddy-sse", raw.ID)
	}
	e.Time = time.UnixMicro(at)
	e.Event.Retry = time.Duration(retry) * time.Millisecond
	e.Event.End = sse.Ending(end)
	return life, e, nil
}

// A filter tells which entries are on any of the channels.
type filter struct {
	all      bool
	names    map[string]bool
	prefixes []string
}

func newFilter(channels []string) *filter {
	f := &filter{names: make(map[string]bool)}
	for _, item := range channels {
		prefix, isPattern := strings.CutSuffix(item, "*")
		switch {
		case !isPattern:
			f.names[item] = true
		case prefix == "":
			f.all = true
		default:
			f.prefixes = append(f.prefixes, prefix)
		}
	}
	return f
}

func (f *filter) matches(e *sse.Event) bool {
	if f.all {
		return true
	}
	for _, name := range e.Channels {
		if f.names[name] {
			return true
		}
		for _, prefix := range f.prefixes {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
	}
	return false
}

// parseQuestions reads what the stream of questions holds, the number of the first of
// them, and the life to which they belong.
func parseQuestions(raw []rueidis.XRangeSlice) (life string, first uint64, questions []sse.Entry, err error) {
	for i := range raw {
		of, digits, _ := strings.Cut(raw[i].ID, "-")
		number, err := strconv.ParseUint(digits, 10, 64)
		if err != nil {
			return "", 0, nil, fmt.Errorf("the id %q of a question cannot be read", raw[i].ID)
		}
		if i == 0 {
			life, first = of, number
		} else if of != life || number != first+uint64(i) {
			break // the next look tells what became of the others
		}
		q := new(sse.Question)
		for _, f := range raw[i].FieldValues {
			switch f.Field {
			case fieldAsk:
				q.Body = []byte(f.Value)
			case fieldID:
				q.ID = f.Value
			case fieldFrom:
				q.From = f.Value
			}
		}
		questions = append(questions, sse.Entry{Question: q})
	}
	return life, first, questions, nil
}
