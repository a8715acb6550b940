//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A share tells what it gains that publishers share commits.
type share struct {
	syncs           *histogram // of the disk alone
	alone, together float64    // events a second
}

const (
	// sharers is how many publishers share commits.
	sharers = 64
	// How often the disk is synced, after so many bytes were written.
	syncTimes, syncBytes = 200, 4096
)

// measureSharing publishes single events, first by one publisher and then by
// many, and syncs the disk itself.
func (set *record) measureSharing(ctx context.Context, s *server, dir string) (sh share, err error) {
	if err := s.settle(ctx); err != nil {
		return share{}, err
	}
	if sh.syncs, err = timeSyncs(dir); err != nil {
		return share{}, err
	}
	if sh.alone, err = set.rate(ctx, s, 1); err != nil {
		return share{}, err
	}
	if err := s.settle(ctx); err != nil {
		return share{}, err
	}
	sh.together, err = set.rate(ctx, s, sharers)
	return sh, err
}

// rate returns how many events a second so many publishers publish, each of
// which waits for its answer.
func (set *record) rate(ctx context.Context, s *server, publishers int) (float64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all []*publisher
	for range publishers {
		p, err := s.newPublisher(ctx, "shared", set.size)
		if err != nil {
			return 0, err
		}
		defer p.close()
		all = append(all, p)
	}
	var running sync.WaitGroup
	var published atomic.Int64
	start := time.Now()
	for _, p := range all {
		running.Go(func() {
			for n := 0; time.Since(start) < set.sharing; n++ {
				if err := p.post(0, n); err != nil {
					cancel(fmt.Errorf("publish: %w", err))
					return
				}
				published.Add(1)
			}
		})
	}
	running.Wait()
	return float64(published.Load()) / time.Since(start).Seconds(), context.Cause(ctx)
}

// timeSyncs measures what a disk takes to sync a few bytes, in a file that does
// not grow: that is how a record is written most of the time.
func timeSyncs(dir string) (h *histogram, err error) {
	file, err := os.Create(filepath.Join(dir, "syncs"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if _, err := file.Write(make([]byte, syncTimes*syncBytes)); err != nil {
		return nil, err
	}
	if err := file.Sync(); err != nil {
		return nil, err
	}
	h = new(histogram)
	b := make([]byte, syncBytes)
	for i := range syncTimes {
		b[0] = byte(i + 1) // something has changed
		start := now()
		if _, err := file.WriteAt(b, int64(i*syncBytes)); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return nil, err
		}
		h.add(now() - start)
	}
	return h, nil
}
