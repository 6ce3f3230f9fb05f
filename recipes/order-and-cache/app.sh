#!/bin/sh
cat /app/installed.txt
