# Instances of an image that `imagebuild publish` published: by the parameter that names the newest one,
# or pinned by the record that the publish wrote.

terraform {
  required_version = ">= 1.5"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "region" {
  type    = string
  default = "eu-west-1"
}

variable "parameter" {
  description = "The SSM parameter of the target: its `parameters`."
  type        = string
  default     = "/images/host/amd64"
}

variable "record" {
  description = "What `imagebuild where host --store store --json` printed, as a file; empty to follow the parameter."
  type        = string
  default     = ""
}

provider "aws" {
  region = var.region
}

# The newest: moved by `publish` and `promote` after everything that it needs is there.
data "aws_ssm_parameter" "image" {
  name = var.parameter
}

locals {
  records = var.record == "" ? [] : jsondecode(file(var.record))
  pinned = [
    for receipt in flatten([for found in local.records : found.record.receipts]) : receipt.id
    if receipt.kind == "ami" && receipt.place == var.region
  ]
  image = length(local.pinned) > 0 ? local.pinned[0] : data.aws_ssm_parameter.image.value
}

# What Terraform boots carries the digest that bare metal boots: refused when it does not.
data "aws_ami" "image" {
  owners = ["self"]
  filter {
    name   = "image-id"
    values = [nonsensitive(local.image)]
  }
  lifecycle {
    postcondition {
      condition     = can(regex("^sha256:[0-9a-f]{64}$", self.tags["firstboot:tree"]))
      error_message = "The image has no tree digest: imagebuild did not publish it."
    }
  }
}

resource "aws_instance" "host" {
  ami           = data.aws_ami.image.id
  instance_type = "t3.small"
  metadata_options {
    http_tokens = "required"
  }
  tags = {
    Name = "host"
    Tree = data.aws_ami.image.tags["firstboot:tree"]
  }
}

output "tree" {
  description = "The tree digest: the same on bare metal, in every cloud and in the container."
  value       = data.aws_ami.image.tags["firstboot:tree"]
}
