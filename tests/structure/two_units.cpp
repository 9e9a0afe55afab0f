// SPDX-License-Identifier: Apache-2.0
//
// Two translation units that include and use everything, in one program.

int first_unit();
int second_unit();

int main() { return first_unit() + second_unit(); }
