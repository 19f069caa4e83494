package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/nar-p2p/nar-p2p/e2e/lab"
)

// mirrors are several hosts on which nginx serves the cargo's NAR, from which
// aria2 fetches it at once.
type mirrors struct {
	*cargo
	consumer *lab.Host
	urls     []string
	runs     int
}

func (c *cargo) newMirrors(hosts []*lab.Host, consumer *lab.Host) *mirrors {
	m := &mirrors{cargo: c, consumer: consumer}
	for i, host := range hosts {
		m.urls = append(m.urls, c.served(fmt.Sprintf("mirror-%d", i), host))
	}
	return m
}

// rate fetches the NAR and returns how many MB/s came.
func (m *mirrors) rate() (float64, error) {
	m.runs++
	dir := m.Dir(fmt.Sprintf("mirrored-%d", m.runs))
	defer os.RemoveAll(dir)
	args := []string{
		"aria2c", "--no-conf", "--quiet", "--file-allocation=none", "--min-split-size=1M", "--max-connection-per-server=4",
		"--split=" + strconv.Itoa(4*len(m.urls)), "--dir=" + dir, "--out=nar",
	}
	return m.timed(m.consumer, filepath.Join(dir, "nar"), append(args, m.urls...))
}

const iperfPort = 5201

// ceiling returns how many MB/s TCP carries from all of the hosts at once to the
// consumer.
func ceiling(l *lab.Lab, hosts []*lab.Host, consumer *lab.Host) (float64, error) {
	rates := make([]float64, len(hosts))
	var all errgroup.Group
	for i, host := range hosts {
		all.Go(func() error {
			out, err := consumer.Command(l.Context(), "iperf3", "--client", host.Addr, "--port", strconv.Itoa(iperfPort),
				"--reverse", "--omit", "1", "--time", "3", "--json").Output()
			if err != nil {
				return fmt.Errorf("iperf3: %w\n%s", err, out)
			}
			var report struct {
				End struct {
					Received struct {
						BitsPerSecond float64 `json:"bits_per_second"`
					} `json:"sum_received"`
				} `json:"end"`
			}
			if err := json.Unmarshal(out, &report); err != nil {
				return fmt.Errorf("iperf3: %w", err)
			}
			rates[i] = report.End.Received.BitsPerSecond / 8e6
			return nil
		})
	}
	err := all.Wait()
	sum := 0.0
	for _, rate := range rates {
		sum += rate
	}
	return sum, err
}

// serveIperf prepares hosts for ceiling.
func serveIperf(hosts []*lab.Host) {
	for _, host := range hosts {
		host.Start("iperf3", "--server", "--port", strconv.Itoa(iperfPort))
		host.WaitListening(iperfPort)
	}
}
