package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// maxReady bounds what an appliance says of its readiness, in bytes.
const maxReady = 4 << 10

// Ready asks whether the appliance can do its work now, and returns what it says: "ready", or what is missing.
func (c *Client) Ready(ctx context.Context) (ready bool, sentence string, err error) {
	req, err := http.NewRequestWithContext(ctx, "GET", strings.TrimSuffix(c.base, "/api/v1")+"/readyz", nil)
	if err != nil {
		return false, "", err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false, "", c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReady))
	if err != nil {
		return false, "", c.unreached(ctx, err)
	}
	switch resp.StatusCode {
	case http.StatusOK:
		return true, strings.TrimSpace(string(b)), nil
	case http.StatusServiceUnavailable:
		return false, strings.TrimSpace(string(b)), nil
	}
	return false, "", fmt.Errorf("the appliance answered %s", resp.Status)
}
