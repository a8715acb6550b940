package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"runtime"
	"time"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/disk"
	"github.com/shirou/gopsutil/v4/mem"
	psnet "github.com/shirou/gopsutil/v4/net"
)

// The figures as they are published. Time is in milliseconds since the epoch,
// sizes are in bytes, rates in bytes per second. A nil field is left out.
type (
	cpuFigures struct {
		Time  int64     `json:"time"`
		Total float64   `json:"total"` // percent
		Cores []float64 `json:"cores"` // percent
	}
	memoryFigures struct {
		Time   int64   `json:"time"`
		Used   uint64  `json:"used"`
		Total  uint64  `json:"total"`
		Cached uint64  `json:"cached"`
		Swap   *uint64 `json:"swap,omitempty"` // in use
	}
	networkFigures struct {
		Time     int64 `json:"time"`
		Received int64 `json:"received"`
		Sent     int64 `json:"sent"`
	}
	diskFigures struct {
		Time    int64   `json:"time"`
		Read    *int64  `json:"read,omitempty"`
		Written *int64  `json:"written,omitempty"`
		Used    *uint64 `json:"used,omitempty"` // of the file system at /
		Total   *uint64 `json:"total,omitempty"`
	}
)

// reader reads the figures of this machine. What cannot be read (not every
// system and container shows all) is logged once and left out.
type reader struct {
	log      *slog.Logger
	reported map[string]bool // names of figures logged as unreadable

	netReceived, netSent  meter
	diskRead, diskWritten meter
}

func newReader(log *slog.Logger) *reader {
	return &reader{log: log, reported: make(map[string]bool)}
}

// read returns an event for each figure that can be read. Rates and
// percentages cover the time since the call before.
func (r *reader) read(ctx context.Context) []envelope {
	now := time.Now()
	var batch []envelope
	add := func(name string, data any, err error) {
		if err != nil {
			r.report(name, err)
			return
		}
		batch = append(batch, envelope{Channel: "metrics-" + name, Event: name, Data: data})
	}

	cpu, err := readCPU(ctx, now)
	add("cpu", cpu, err)
	memory, err := r.readMemory(ctx, now)
	add("memory", memory, err)
	network, err := r.readNetwork(ctx, now)
	add("network", network, err)
	disk, err := r.readDisk(ctx, now)
	add("disk", disk, err)
	return batch
}

func (r *reader) report(figure string, err error) {
	if r.reported[figure] {
		return
	}
	r.reported[figure] = true
	r.log.Warn("cannot read, left out from now on", "figure", figure, "error", err)
}

func readCPU(ctx context.Context, now time.Time) (*cpuFigures, error) {
	total, err := cpu.PercentWithContext(ctx, 0, false)
	if err != nil {
		return nil, err
	}
	cores, err := cpu.PercentWithContext(ctx, 0, true)
	if err != nil {
		return nil, err
	}
	if len(total) == 0 {
		return nil, errors.New("no processor shown")
	}
	for i := range cores {
		cores[i] = tenths(cores[i])
	}
	return &cpuFigures{Time: now.UnixMilli(), Total: tenths(total[0]), Cores: cores}, nil
}

// tenths rounds: a plot shows no more, and the events stay short.
func tenths(percent float64) float64 { return math.Round(percent*10) / 10 }

func (r *reader) readMemory(ctx context.Context, now time.Time) (*memoryFigures, error) {
	memory, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return nil, err
	}
	figures := &memoryFigures{
		Time:   now.UnixMilli(),
		Used:   memory.Used,
		Total:  memory.Total,
		Cached: memory.Cached,
	}
	if swap, err := mem.SwapMemoryWithContext(ctx); err != nil {
		r.report("swap", err)
	} else {
		figures.Swap = &swap.Used
	}
	return figures, nil
}

func (r *reader) readNetwork(ctx context.Context, now time.Time) (*networkFigures, error) {
	loopback, err := loopbackNames()
	if err != nil {
		return nil, err
	}
	interfaces, err := psnet.IOCountersWithContext(ctx, true)
	if err != nil {
		return nil, err
	}
	received, sent := make(map[string]uint64), make(map[string]uint64)
	for _, i := range interfaces {
		if !loopback[i.Name] {
			received[i.Name], sent[i.Name] = i.BytesRecv, i.BytesSent
		}
	}
	return &networkFigures{
		Time:     now.UnixMilli(),
		Received: r.netReceived.rate(now, received),
		Sent:     r.netSent.rate(now, sent),
	}, nil
}

func loopbackNames() (map[string]bool, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	names := make(map[string]bool)
	for _, i := range interfaces {
		names[i.Name] = i.Flags&net.FlagLoopback != 0
	}
	return names, nil
}

// readDisk fails only when neither the traffic nor the usage can be read.
func (r *reader) readDisk(ctx context.Context, now time.Time) (*diskFigures, error) {
	figures := &diskFigures{Time: now.UnixMilli()}

	read, written, trafficErr := diskCounters(ctx)
	if trafficErr != nil {
		r.report("disk traffic", trafficErr)
	} else {
		figures.Read = new(r.diskRead.rate(now, read))
		figures.Written = new(r.diskWritten.rate(now, written))
	}

	usage, usageErr := disk.UsageWithContext(ctx, "/")
	if usageErr != nil {
		r.report("disk usage", usageErr)
	} else {
		figures.Used, figures.Total = &usage.Used, &usage.Total
	}

	if trafficErr != nil && usageErr != nil {
		return nil, errors.Join(trafficErr, usageErr)
	}
	return figures, nil
}

func diskCounters(ctx context.Context) (read, written map[string]uint64, err error) {
	names, err := physicalDisks()
	if err != nil {
		return nil, nil, err
	}
	disks, err := disk.IOCountersWithContext(ctx, names...)
	if err != nil {
		return nil, nil, err
	}
	if len(disks) == 0 {
		return nil, nil, errors.New("no disk shown")
	}
	read, written = make(map[string]uint64), make(map[string]uint64)
	for name, d := range disks {
		read[name], written[name] = d.ReadBytes, d.WriteBytes
	}
	return read, written, nil
}

// physicalDisks names the disks to count. Linux counts every byte again for
// the partition, the RAID and the encryption that it passes; of these only a
// physical disk has a device behind it. The other systems list nothing twice,
// there it returns nothing, which stands for all.
func physicalDisks() ([]string, error) {
	const blockDevices = "/sys/block"
	if runtime.GOOS != "linux" {
		return nil, nil
	}
	entries, err := os.ReadDir(blockDevices)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, entry := range entries {
		if _, err := os.Stat(blockDevices + "/" + entry.Name() + "/device"); err == nil {
			names = append(names, entry.Name())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no physical disk in %s", blockDevices)
	}
	return names, nil
}
