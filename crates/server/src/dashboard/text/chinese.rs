//! 简体中文。

use super::Texts;

pub(super) const TEXTS: Texts = Texts {
    server: "服务器",
    worker: "消费端",
    skip: "跳到正文",
    read_only: "只读",
    log_out: "退出登录",
    dark: "深色",
    light_theme: "浅色",
    system_theme: "自动",
    login_title: "登录",
    login_help: "请输入管理地址的令牌。使用只读令牌可以查看全部内容,但不能做任何更改。",
    login_token: "令牌",
    login_submit: "登录",
    login_wrong: "令牌不正确。",
    denied_title: "只读",
    denied_open: "管理地址没有设置令牌,因此不能在此做任何更改。请设置令牌,或将 dashboard.actions 设为 true。",
    denied_reader: "只读令牌可以查看全部内容,但不能做任何更改。请使用令牌登录后再操作。",
    overview: "概览",
    not_found: "没有这个页面",
};
