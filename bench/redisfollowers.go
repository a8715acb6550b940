//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A following is events by the clock, and so many who follow the record, one of
// which is a node. What others would cost Redis is all that is to be known of them,
// so they ask as nodes do and throw away what they are told: as many nodes would
// not fit on the machine.
type following struct{ followers, together, rate int }

// followings tell what one more follower costs Redis, when each event wakes all and
// when events come a hundred at a time.
var followings = []following{
	{1, 1, 1000},
	{10, 1, 1000},
	{30, 1, 1000},
	{100, 1, 1000},
	{1, tailTogether, 10_000},
	{10, tailTogether, 10_000},
	{30, tailTogether, 10_000},
}

// followingPart is for how long each of them lasts, of what is set.
const followingPart = 4

// measureFollowing has nobody receive what is published, but those who follow.
func (set *redis) measureFollowing(ctx context.Context, k *kit, g following) (r flowResult, err error) {
	c, err := set.startCluster(ctx, k, 1)
	if err != nil {
		return r, err
	}
	defer c.stop()
	if err := c.follow(ctx, g.followers-1); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, c.others.close()) }()
	w := &crowd{cluster: c, size: set.size, flow: flow{
		publishers: redisPublishers,
		channels:   multiple(set.streams, redisPublishers),
		together:   g.together,
		every:      time.Duration(redisPublishers*g.together) * time.Second / time.Duration(g.rate),
		lasting:    set.lasting / followingPart,
	}}
	if r, err = w.measure(ctx, c.nodes); err != nil {
		return r, err
	}
	if want := (g.followers - 1) * r.events; r.entries != want {
		err = fmt.Errorf("%d events reached those who follow, not %d", r.entries, want)
	}
	return r, err
}

// Followers read a record until they are closed.
type followers struct {
	conns            []net.Conn
	running          sync.WaitGroup
	closing          atomic.Bool
	entries, answers atomic.Int64 // of all of them
	failed           atomic.Pointer[error]
}

// follow begins to read the record of the cluster from its beginning.
func (c *cluster) follow(ctx context.Context, n int) error {
	f := &c.others
	for range n {
		conn, err := c.redis.dial(ctx)
		if err != nil {
			return errors.Join(err, f.close())
		}
		f.conns = append(f.conns, conn)
		f.running.Go(func() {
			if err := f.read(conn); err != nil && !f.closing.Load() {
				f.failed.CompareAndSwap(nil, &err)
			}
		})
	}
	return nil
}

// close returns why one of them failed.
func (f *followers) close() error {
	f.closing.Store(true)
	for _, conn := range f.conns {
		_ = conn.Close()
	}
	f.running.Wait()
	if failed := f.failed.Load(); failed != nil {
		return fmt.Errorf("follow the record: %w", *failed)
	}
	return nil
}

// read asks for what comes next, as a node does, until the connection is closed.
func (f *followers) read(conn net.Conn) error {
	const key, most = "{sse:default}:record", 64
	answer := bufio.NewReaderSize(conn, 64<<10)
	for last := "0-0"; ; {
		_, err := fmt.Fprintf(conn, "XREAD COUNT %d BLOCK %d STREAMS %s %s\r\n", most, patience.Milliseconds(), key, last)
		if err != nil {
			return err
		}
		streams, err := readSize(answer, '*')
		if err != nil {
			return err
		}
		if streams != 1 { // nothing came
			continue
		}
		n, newest, err := readEntries(answer)
		if err != nil {
			return err
		}
		last = newest
		f.entries.Add(int64(n))
		f.answers.Add(1)
	}
}

// readEntries reads the part of an answer that is the one stream, and returns how many
// entries it has, and the id of the last.
func readEntries(from *bufio.Reader) (n int, last string, err error) {
	if _, err := readSize(from, '*'); err != nil {
		return 0, "", err
	}
	if _, err := readText(from); err != nil { // the name
		return 0, "", err
	}
	if n, err = readSize(from, '*'); err != nil {
		return 0, "", err
	}
	for range n {
		if _, err := readSize(from, '*'); err != nil {
			return 0, "", err
		}
		id, err := readText(from)
		if err != nil {
			return 0, "", err
		}
		last = string(id)
		fields, err := readSize(from, '*')
		if err != nil {
			return 0, "", err
		}
		for range fields {
			if _, err := readText(from); err != nil {
				return 0, "", err
			}
		}
	}
	return n, last, nil
}

// readSize reads how many parts or bytes follow.
func readSize(from *bufio.Reader, kind byte) (int, error) {
	line, err := from.ReadSlice('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("redis answered %q", line)
	}
	return strconv.Atoi(string(bytes.TrimSpace(line[1:])))
}

// readText reads a text that is not longer than the buffer. It is valid until the next
// read.
func readText(from *bufio.Reader) ([]byte, error) {
	size, err := readSize(from, '$')
	if err != nil {
		return nil, err
	}
	const end = 2 // CR LF
	text, err := from.Peek(size + end)
	if err != nil {
		return nil, err
	}
	_, err = from.Discard(size + end)
	return text[:size], err
}
