//! Choices of what tasks do as they are polled.

use crate::generate::Generator;
use crate::plan::{Ending, Number, Op, Order, Text};

/// Where a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not a call.
    Task,
    /// The service has not responded.
    Handler,
    /// The response is being read.
    Body,
}

impl Generator {
    /// What `task` does as it is polled next.
    pub(crate) fn orders(&mut self, task: Number) -> Vec<Order> {
        let Some(at) = self.tasks.iter().position(|(other, _)| *other == task) else {
            return vec![];
        };
        let (_, mut phase) = self.tasks[at];
        let mut orders = vec![];
        let mut is_over = false;
        for _ in 0..self.choices.between(1, 4) {
            if self.choices.percent(55) {
                let ops = self.ops(2, 3);
                orders.push(Order::Do(ops));
            }
            if self.choices.percent(5) {
                let number = self.number();
                orders.push(Order::Do(vec![Op::Throw(number)]));
                is_over = true;
            } else {
                is_over = match phase {
                    Phase::Task => self.task_order(&mut orders),
                    Phase::Handler => self.handler_order(&mut orders, &mut phase),
                    Phase::Body => self.body_order(&mut orders),
                };
            }
            // Pending from time to time.
            if is_over || self.choices.percent(25) {
                break;
            }
        }
        self.tasks[at].1 = phase;
        if is_over {
            self.tasks.remove(at);
        }
        orders
    }

    fn task_order(&mut self, orders: &mut Vec<Order>) -> bool {
        let is_over = self.choices.percent(20);
        orders.extend(is_over.then_some(Order::End));
        is_over
    }

    fn handler_order(&mut self, orders: &mut Vec<Order>, phase: &mut Phase) -> bool {
        match self.choices.weighted(&[40, 35, 8, 2, 6, 20]) {
            0 => orders.push(Order::Read),
            1 => {
                *phase = Phase::Body;
                orders.push(Order::Head(None));
            }
            2 => {
                let ending = self.ending();
                *phase = Phase::Body;
                orders.push(Order::Head(Some(ending)));
                orders.push(Order::End);
                return true;
            }
            3 => {
                let code = self.choices.pick(&[401, 404, 503]);
                orders.push(Order::Http(code));
                orders.push(Order::End);
                return true;
            }
            4 => {
                let number = self.number();
                let text = self.text();
                orders.push(Order::Fail(number, text));
                return true;
            }
            _ => {}
        }
        false
    }

    fn body_order(&mut self, orders: &mut Vec<Order>) -> bool {
        match self.choices.weighted(&[40, 35, 4, 4, 10]) {
            0 => orders.push(Order::Message),
            1 => {
                let ending = self.ending();
                orders.push(Order::Trailers(ending));
                orders.push(Order::End);
                return true;
            }
            2 => {
                let number = self.number();
                let text = self.text();
                orders.push(Order::Fail(number, text));
                return true;
            }
            3 => {
                orders.push(Order::End);
                return true;
            }
            _ => {}
        }
        false
    }

    fn ending(&mut self) -> Ending {
        let code = match self.choices.percent(45) {
            true => 0,
            // 17 is none of gRPC's codes.
            false => self
                .choices
                .pick(&[1, 2, 2, 3, 4, 5, 7, 13, 13, 14, 15, 16, 17]),
        };
        Ending {
            code,
            number: self.number(),
            text: self.text(),
        }
    }

    pub(crate) fn text(&mut self) -> Text {
        self.choices
            .pick(&[Text::Refused, Text::CannotGreet, Text::Own, Text::Own])
    }
}
