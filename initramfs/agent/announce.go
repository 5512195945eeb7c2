package agent

import (
	"context"

	"seedbed/images/swarm"
)

func (d *deployment) announce(ctx context.Context, sw *swarm.Swarm) {}
